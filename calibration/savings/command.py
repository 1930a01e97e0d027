"""`joulegate savings`: what a switchback's treatment saves against its baseline, and how surely.

Exit code 0: compared (whatever came out). 1: Prometheus did not answer, or no experiment is in the
window. 2: an option cannot be used.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.table import Table

from calibration.recalibrate.prometheus import (
    PrometheusClient,
    PrometheusError,
    create_client,
    parse_duration_seconds,
)
from calibration.savings.arms import COUNTERS, INFO, read_blocks, read_switchback
from calibration.savings.focus import export_month
from calibration.savings.options import SavingsOptions
from calibration.savings.savings import (
    LEAST_PAIRS,
    MOST_ESTIMATED,
    ArmComparison,
    compare,
    find_estimated_share,
    pair_up,
)
from calibration.tables.columns import BadInput
from gateway.console import OK, out, print_json, report_failure, report_usage_error
from gateway.scheduling.switchback import Switchback
from gateway.utc_time import format_time

_DECIDING = ("joules_per_1000_tokens", "joules_per_answer")
_VERDICTS = {
    "less": "energy was saved, per token and per answer",
    "more": "the treatment spends more, per token and per answer",
}


def run(options: SavingsOptions, *, clock: Callable[[], float] = time.time) -> int:
    """Do it; return the exit code."""
    try:
        if options.focus is not None:
            return export_month(options, clock())
        report = _report(options, clock())
    except BadInput as error:
        return report_usage_error(error)
    except (PrometheusError, OSError) as error:
        return report_failure(error)
    if options.as_json:
        print_json(report)
    return OK


def _report(options: SavingsOptions, at: float) -> dict[str, Any]:
    try:
        seconds = parse_duration_seconds(options.window)
    except ValueError as error:
        raise BadInput(f"--window {error}") from None
    warnings: list[str] = []
    series = {}
    with create_client(options.prometheus, options.access) as server:
        switchback, baseline = _find(server, options, at)
        for counter, metric in COUNTERS.items():
            found = server.query_samples(metric, options.window, at, experiment=switchback.name)
            warnings += found.attributed_warnings
            series[counter] = found.series
    blocks = read_blocks(switchback, series, at - seconds, at)
    pairs = pair_up(blocks)
    figures = compare(pairs)
    if not any(one.added.get("joules.request") for one in blocks):
        warnings.append("no joules of requests in the window: is a meter configured?")
    verdict = judge(figures)
    estimated = find_estimated_share(pairs)
    if estimated > MOST_ESTIMATED:
        # Predictions agree with the profile by themselves, whatever was spent.
        figures = [one for one in figures if "joules" not in one.name]
        verdict = (
            f"nothing to compare: {estimated:.0%} of an arm's request joules were predicted and "
            f"not measured, {MOST_ESTIMATED:.0%} at most (look at the meters)"
        )
    elif estimated > 0.0:
        warnings.append(f"up to {estimated:.1%} of an arm's request joules were predicted")
    report = {
        "experiment": switchback.name,
        "baseline": baseline,
        "window": options.window,
        "to": format_time(at),
        "block_seconds": switchback.block_seconds,
        "pairs": len(pairs),
        "blocks_left_out": len(blocks) - 2 * len(pairs),
        "warnings": list(dict.fromkeys(warnings)),
        "figures": [
            {**asdict(one), "change": one.change, "verdict": one.verdict} for one in figures
        ],
        "estimated_share": estimated,
        "verdict": verdict,
    }
    if not options.as_json:
        _show(report, figures)
    return report


def _find(server: PrometheusClient, options: SavingsOptions, at: float) -> tuple[Switchback, str]:
    """Return the experiment to look at, and what its baseline is. Raises PrometheusError."""
    found = server.query_samples(INFO, options.window, at)
    try:
        told = read_switchback(found.series, options.experiment)
    except ValueError as error:
        raise PrometheusError(str(error)) from None
    if not told:
        which = f" {options.experiment!r}" if options.experiment else ""
        raise PrometheusError(
            f"no experiment{which} in the window: the gateways' config needs `experiment`"
        )
    if len(told) > 1:
        raise BadInput(f"which of {', '.join(sorted(told))}? --experiment NAME")
    return next(iter(told.values()))


def judge(figures: list[ArmComparison]) -> str:
    """Say in a line whether energy was saved, or that the data cannot tell."""
    found = {one.name: one for one in figures}
    deciding = [found[name] for name in _DECIDING if name in found]
    if len(deciding) < len(_DECIDING):
        return "nothing to compare: an arm has no joules, tokens or answers"
    if any(one.low is None for one in deciding):
        return f"too few blocks to tell: at least {LEAST_PAIRS} pairs are needed"
    clear = {one.verdict: one for one in deciding if one.verdict in _VERDICTS}
    if not clear:
        return "the data cannot tell whether energy was saved; run it for longer"
    if len(clear) > 1:
        return "less by one measure and more by the other: answers changed in length"
    (verdict, one) = next(iter(clear.items()))
    if all(other.verdict == verdict for other in deciding):
        return _VERDICTS[verdict]
    return f"{verdict} {one.name.replace('_', ' ')}; by the other the data cannot tell"


def _show(report: dict[str, Any], figures: list[ArmComparison]) -> None:
    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    say(
        f"experiment {report['experiment']}: against {report['baseline']}, {report['window']} to "
        f"{report['to']}, {report['pairs']} pairs of blocks of "
        f"{report['block_seconds'] / 60.0:g} minutes"
    )
    for warning in report["warnings"]:
        say(f"! {warning}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "baseline", "treatment", "change", "95% interval", ""):
        table.add_column(name, no_wrap=True, justify="left" if not name else "right")
    for one in figures:
        interval = "-"
        if one.low is not None and one.high is not None:
            interval = f"{one.low:+.1%} to {one.high:+.1%}"
        cells = (f"{one.baseline:.4g}", f"{one.treatment:.4g}", f"{one.change:+.1%}", interval)
        table.add_row(one.name.replace("_", " "), *cells, one.verdict)
    out.print(table)
    say(report["verdict"])
