"""`joulegate recalibrate`: from Prometheus to a profile file, once or every so often.

Nothing is written before everything was read, refitted, checked and shown.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

import msgspec

from calibration.recalibrate import profile_keys as keys
from calibration.recalibrate import refit_models as recalibrate
from calibration.recalibrate import report as recalibrate_report
from calibration.recalibrate import rollback as previous
from calibration.recalibrate.options import BEST, RecalibrateOptions
from calibration.recalibrate.printed_report import print_report
from calibration.recalibrate.prometheus import (
    PrometheusClient,
    PrometheusError,
    create_client,
    parse_duration_seconds,
)
from calibration.recalibrate.refit_models import RefitOutcome, RefitSettings
from calibration.recalibrate.window_sums import gather_sums
from calibration.tables.columns import BadInput, check_choice
from gateway import profile
from gateway.console import (
    FAILED,
    OK,
    err,
    format_os_error,
    out,
    print_json,
    report_failure,
    report_usage_error,
)
from gateway.profile import CostProfile, ModelProfile
from gateway.scheduling.cost import RegressionForm
from gateway.utc_time import format_time


def run(
    options: RecalibrateOptions,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Do it; return the exit code. Complaints go to stderr, nothing is written then."""
    try:
        if options.rollback:
            return _restore_previous(options)
        every = _check_options(options)
    except (BadInput, profile.ProfileError) as error:
        return report_usage_error(error)
    except OSError as error:
        return report_failure(format_os_error(error))
    if every is None:
        return _run_round(options, clock())
    try:
        while True:  # one bad round does not end it: the next may find Prometheus back
            began = clock()
            try:
                _run_round(options, began)
            except Exception as error:  # noqa: BLE001 - whatever it is, other data may not have it
                said = " ".join(f"{type(error).__name__}: {error}".split())
                err.print(f"joulegate: this round failed: {said}", markup=False)
            sleep(max(0.0, every - (clock() - began)))
    except KeyboardInterrupt:
        return OK


def _run_round(options: RecalibrateOptions, at: float) -> int:
    """Recalibrate once."""
    try:
        live = profile.load_profile(options.profile, options.learnt)
        with create_client(str(options.prometheus), options.access) as server:
            with err.status("reading Prometheus", spinner="line"):
                window = gather_sums(server, options.window, at, live.version)
            chosen = keys.choose_keys(
                window.blocks,
                live,
                options.model,
                lambda: server.query_samples(keys.INFO_METRIC, options.window, at),
            )
        outcomes = recalibrate.recalibrate_models(
            window, live, chosen.deployments, _build_settings(options)
        )
        adopted = [one for one in outcomes if one.entry is not None]
        source = _describe_source(server, options, at, live)
        warnings = tuple(dict.fromkeys((*window.warnings, *chosen.warnings)))
        report = recalibrate_report.build_report(outcomes, warnings, live, source)
        if not options.as_json:
            print_report(out, outcomes, warnings, live, source)
        version = None
        if adopted and options.target is not None and not options.dry_run:
            parent = live.version if options.target == options.profile else None
            models = _merge_models(live, adopted, source)
            version = previous.replace_profile(
                models, options.target, parent, live.lengths, live.accuracy_by_prompt
            )
        _print_conclusion(options, report, version, outcomes)
    except (BadInput, profile.ProfileError) as error:
        return report_usage_error(error)
    except (PrometheusError, previous.ProfileChanged) as error:
        return report_failure(error)
    except OSError as error:
        return report_failure(format_os_error(error))
    done = bool(adopted) or any(one.live_profile_kept for one in outcomes)
    return OK if done and not any(one.refused for one in outcomes) else FAILED


def _check_options(options: RecalibrateOptions) -> float | None:
    """Refuse what cannot be used before any work; the seconds between rounds, None for once."""
    if options.prometheus is None:
        raise BadInput("--prometheus URL is needed: where do the gateways' metrics go?")
    try:
        create_client(str(options.prometheus), options.access)
    except PrometheusError as error:
        raise BadInput(f"--prometheus: {error}") from None
    check_choice(options.form, "--form", (*RegressionForm, BEST))
    _parse_duration("--window", options.window)
    _build_settings(options)
    profile.load_profile(options.profile, options.learnt)
    if not options.dry_run:
        target = options.target
        if options.learnt is not None and options.out is None:
            raise BadInput("--learnt wants an --out: which of the two files to write?")
        if target is None:
            raise BadInput(
                "where to write? --out FILE, or --profile FILE to replace it; or --dry-run"
            )
        if not target.parent.is_dir():
            raise BadInput(f"--out {target}: there is no directory {target.parent}")
        if target.exists():
            profile.load_profile(target)  # whatever else it is, or a newer version's, is kept
    return _parse_duration("--watch", options.watch) if options.watch else None


def _build_settings(options: RecalibrateOptions) -> RefitSettings:
    """Return how to refit."""
    form = None if options.form == BEST else RegressionForm(options.form)
    seconds = _parse_duration("--block", options.block) if options.block else None
    return RefitSettings(options.limits, options.prior, form, seconds)


def _parse_duration(option: str, text: str) -> float:
    try:
        return parse_duration_seconds(text)
    except ValueError as error:
        raise BadInput(f"{option} {error}") from None


def _describe_source(
    server: PrometheusClient, options: RecalibrateOptions, at: float, live: CostProfile
) -> dict[str, Any]:
    """Say where the window's sums come from, for report and provenance."""
    begin = at - parse_duration_seconds(options.window)
    return {
        "prometheus": server.redacted_url,
        "match": list(server.matchers),
        "window": options.window,
        "from": format_time(begin),
        "to": format_time(at),
        "parent_version": live.version,
    }


def _merge_models(
    live: CostProfile,
    adopted: Iterable[RefitOutcome],
    source: Mapping[str, Any],
) -> dict[str, ModelProfile]:
    """Return all models of the new profile, those adopted with their provenance."""
    models = dict(live.models)
    for one in adopted:
        assert one.entry is not None  # noqa: S101 - adopted
        before = one.entry.provenance
        kept = {name: before[name] for name in ("hardware", "engine", "accuracy") if name in before}
        models[one.key] = msgspec.structs.replace(
            one.entry,
            provenance={
                **kept,
                "source": f"joulegate recalibrate {metadata.version('joulegate')}",
                "method": "recalibrated",
                **source,
                "dates": [source["from"], source["to"]],
                "fitted": format_time(time.time()),
                **{part.name: recalibrate_report.build_provenance(part) for part in one.parts},
            },
        )
    return models


def _restore_previous(options: RecalibrateOptions) -> int:
    """Exchange the file with its previous one."""
    path = options.target
    if path is None:
        raise BadInput("--rollback: of which file? --profile FILE")
    now, then = previous.exchange_profiles(path)
    if options.as_json:
        print_json({"out": str(path), "profile_version": then, "previous_version": now})
    else:
        text = (
            f"{path} is version {then} again; {now} is kept as {previous.get_previous_path(path)}"
        )
        out.print(text, markup=False, soft_wrap=True)
    return OK


def _print_conclusion(
    options: RecalibrateOptions,
    report: dict[str, Any],
    version: str | None,
    outcomes: Iterable[RefitOutcome],
) -> None:
    path = str(options.target) if version else None
    if options.as_json:
        print_json(
            {**report, "out": path, "profile_version": version}, line=options.watch is not None
        )
        return
    adopted = ", ".join(one.key for one in outcomes if one.entry is not None)
    if version:
        text = f"wrote {path} (version {version}): {adopted}"
    elif adopted:
        text = f"would adopt: {adopted} (--dry-run: nothing was written)"
    else:
        text = "nothing was adopted; the live profile stays as it is"
    out.print(f"\n{text}", markup=False, soft_wrap=True)
