"""`joulegate replay`: recorded requests through scenarios; a table, or JSON."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from rich.progress import TimeRemainingColumn

from calibration.progress_bar import create_progress_bar
from calibration.replay import replay
from calibration.replay import report as replay_report
from calibration.replay import requests as requests_file
from calibration.replay import statistics as outcomes
from calibration.replay.decision_log_reader import RecordedRequest
from calibration.replay.off_policy import (
    JudgedPlans,
    estimate_policy,
    find_judged_draws,
    match_models,
)
from calibration.replay.options import ReplayOptions
from calibration.replay.replay import Ints, ReplayScenario
from calibration.replay.replay_fleet import ReplayFleet, map_profile_keys
from calibration.replay.report import ProfileResults
from calibration.replay.requests import ReplayRequests
from calibration.replay.scenarios import build_scenarios
from calibration.replay.statistics import PlanComparison
from calibration.tables.columns import BadInput, parse_name_pairs
from gateway import profile, tokens
from gateway.console import OK, format_os_error, out, print_json, report_failure, report_usage_error

RECORDED: Final = "as recorded"
_QUIET_SECONDS: Final = 2.0


def run(options: ReplayOptions) -> int:
    """Do it; return the exit code. Nothing is ever written."""
    try:
        report = _run_replay(options)
    except (BadInput, profile.ProfileError) as error:
        return report_usage_error(error)
    except OSError as error:
        return report_usage_error(format_os_error(error))
    except KeyboardInterrupt:
        return report_failure("stopped")
    if options.as_json:
        print_json(report)
    return OK


def _run_replay(options: ReplayOptions) -> dict[str, Any]:
    if options.lengths not in ("recorded", "predicted"):
        raise BadInput(f"--lengths {options.lengths}: is none of recorded, predicted")
    wanted = build_scenarios(options.weights, options.preset, options.policy, options.profile)
    contexts = _parse_contexts(options.context)
    names = parse_name_pairs(options.model, "--model")
    with _show_progress() as step:
        found = requests_file.read_requests(
            options.file,
            tokens.load_token_counter,
            column=options.prompt_column,
            pinned=options.pinned,
            on_row=lambda: step("reading", 1),
        )
        _check_bad(found, options.max_bad)
        profiles = list({id(one.profile): one.profile for one in wanted}.values())
        keys = map_profile_keys(found.requests, profiles, names)
        groups = [
            _compare_plans(
                options,
                found,
                [one for one in wanted if one.profile is each],
                ReplayFleet(each, keys, contexts),
                step,
            )
            for each in profiles
        ]
    if not options.as_json:
        replay_report.print_report(out, found, groups)
    return replay_report.build_report(
        found, groups, replicates=options.replicates, seed=options.seed
    )


def _compare_plans(
    options: ReplayOptions,
    found: ReplayRequests,
    wanted: list[ReplayScenario],
    world: ReplayFleet,
    step: Callable[[str, int], None],
) -> ProfileResults:
    """Run all scenarios of one profile, and what they are compared with."""
    requests = found.requests
    plans: dict[str, Ints] = {}
    for scenario in wanted:
        plans[scenario.name] = replay.choose_deployments(
            world, requests, scenario, on_row=lambda: step("deciding", 1)
        )
    always = {f"always {model}": model for model in world.models}
    for name, model in always.items():
        plans[name] = replay.choose_deployments(world, requests, wanted[0], only=model)
    then = replay.find_recorded_choices(world, requests)
    if then is not None and (then >= 0).all():
        plans[RECORDED] = then
    able = outcomes.find_served_requests(list(plans.values()))
    if not len(able):
        raise BadInput(f"{found.name}: no request fits any model (--context?)")
    kept = [requests[at] for at in able]
    plans = {name: chosen[able] for name, chosen in plans.items()}
    sizes = replay.compute_lengths(world, kept, predicted=options.lengths == "predicted")
    priced = replay.compute_prices(world, sizes)
    comparison = PlanComparison(
        world,
        priced,
        plans,
        fixed=list(always),
        replicates=options.replicates,
        seed=options.seed,
        on_replicates=lambda count: step("resampling", count * len(kept)),
    )
    others = [*always, *([RECORDED] if RECORDED in plans else [])]
    return ProfileResults(
        profile=world.profile,
        outcomes=[comparison.compute_outcome(name) for name in plans],
        savings=[
            comparison.compute_saving(scenario.name, against)
            for scenario in wanted
            for against in others
        ],
        requests=len(kept),
        unserved=len(requests) - len(kept),
        recorded_lengths=sizes.recorded,
        floored=priced.floored,
        outgrown=replay.count_outgrown(world, sizes),
        uncertain=comparison.uncertain,
        certain=sorted(set(world.models) - set(comparison.uncertain)),
        observed=_summarize_observed(kept),
        judged=_judge_plans(world, kept, plans),
    )


def _judge_plans(
    world: ReplayFleet, kept: list[RecordedRequest], plans: dict[str, Ints]
) -> JudgedPlans | None:
    """Return what feedback says of each plan; None where nobody drew, or nobody judged."""
    found = find_judged_draws(world, kept)
    if found is None:
        return None
    rows, draws = found
    values = {
        name: estimate_policy(draws, match_models(world, chosen[rows]))
        for name, chosen in plans.items()
    }
    return JudgedPlans(len(rows), values)


def _summarize_observed(kept: list[RecordedRequest]) -> dict[str, Any]:
    """Return what was measured then: context for the predictions, not compared with them."""
    seconds = [one.seconds for one in kept if one.seconds is not None]
    joules = [one.joules for one in kept if one.joules is not None and one.measured]
    return {
        "seconds_per_request": float(np.mean(seconds)) if seconds else None,
        "seconds_n": len(seconds),
        "joules_per_request": float(np.mean(joules)) if joules else None,
        "joules_n": len(joules),
    }


def _check_bad(found: ReplayRequests, most: float) -> None:
    count = sum(found.bad.values())
    # A gateway that is writing, or was killed, leaves a half line at the end.
    if count <= 1 or count / found.lines <= most:
        return
    reasons = "; ".join(
        f"{n}: {reason} (first: {found.first_bad[reason]})" for reason, n in found.bad.most_common()
    )
    raise BadInput(
        f"{found.name}: {count} of {found.lines} lines cannot be used, more than {most:.0%}: "
        f"{reasons}; to replay the rest: --max-bad 1"
    )


def _parse_contexts(given: list[str]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, size = text.partition("=")
        if not (name and size.isascii() and size.isdigit() and int(size) > 0):
            raise BadInput(f"--context {text}: want MODEL=TOKENS")
        found[name] = int(size)
    return found


@contextmanager
def _show_progress() -> Iterator[Callable[[str, int], None]]:
    """Show what is done and how far, on a terminal, once it takes more than a moment."""
    bar = create_progress_bar("{task.description} {task.completed:,.0f}", TimeRemainingColumn())
    task = bar.add_task("reading", total=None)
    began, counts = time.monotonic(), {"": 0}

    def advance_bar(what: str, count: int) -> None:
        if what not in counts:
            counts[what] = 0
            bar.update(task, description=what, completed=0, total=None)
        counts[what] += count
        if counts[what] % 256 == 0 or count > 1:
            if not bar.live.is_started and time.monotonic() - began > _QUIET_SECONDS:
                bar.start()
            bar.update(task, completed=counts[what])

    try:
        yield advance_bar
    finally:
        bar.stop()
