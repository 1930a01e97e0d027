"""A replay's results, as text and as JSON."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from calibration.replay.off_policy import JudgedPlans
from calibration.replay.requests import LOG, ReplayRequests
from calibration.replay.statistics import IntervalEstimate, PlanOutcome, PlanSaving
from gateway.profile import CostProfile

_SAVED = ("J saved per request", "s saved per request", "accuracy gained", "answered by another")


@dataclass(frozen=True, slots=True)
class ProfileResults:
    """All plans under one profile."""

    profile: CostProfile
    outcomes: list[PlanOutcome]
    savings: list[PlanSaving]
    requests: int
    unserved: int
    recorded_lengths: int
    floored: int
    outgrown: dict[str, int]
    uncertain: list[str]
    """Models whose coefficients have a covariance in the profile."""
    certain: list[str]
    observed: dict[str, Any] = field(default_factory=dict)
    judged: JudgedPlans | None = None


def print_report(out: Console, found: ReplayRequests, groups: list[ProfileResults]) -> None:
    """Print the results of all profiles as tables with notes."""
    out.print(f"{found.name}: {_format_counts(found)}", markup=False, soft_wrap=True)
    for group in groups:
        _print_results(out, group, found)


def _print_results(out: Console, group: ProfileResults, found: ReplayRequests) -> None:
    size = group.requests
    out.print(f"\nprofile {group.profile.version}, {size} requests", markup=False)
    grid = Table(box=None, pad_edge=False)
    grid.add_column("plan", overflow="fold")
    for name in ("J per request", "s per request", "accuracy"):
        grid.add_column(name, justify="right")
    grid.add_column("share by model", overflow="fold")
    for one in group.outcomes:
        shares = "\n".join(
            f"{model} {_format_percent(share)}"
            for model, share in one.shares.items()
            if share.value and not one.fixed
        )
        grid.add_row(
            Text(one.name),
            _format_number(one.joules),
            _format_number(one.seconds),
            _format_share(one.accuracy),
            Text(shares),
        )
    out.print(grid)
    grid = Table(box=None, pad_edge=False)
    grid.add_column("plan", overflow="fold")
    grid.add_column("against", overflow="fold")
    for name in _SAVED:
        grid.add_column(name, justify="right")
    for saving in group.savings:
        grid.add_row(
            Text(saving.plan),
            Text(saving.against),
            _format_number(saving.joules),
            _format_number(saving.seconds),
            _format_share(saving.accuracy, signed=True),
            _format_percent(saving.changed),
        )
    out.print("\nat unchanged load: each request meets the load that it met", markup=False)
    out.print(grid)
    if group.judged is not None:
        _print_judged(out, group.judged)
    for note in list_notes(group, found):
        out.print(f"! {note}", markup=False, soft_wrap=True)


def _print_judged(out: Console, judged: JudgedPlans) -> None:
    """Print what feedback says of each plan."""
    grid = Table(box=None, pad_edge=False)
    grid.add_column("plan", overflow="fold")
    for name in ("inverse propensity", "doubly robust", "matched", "could be drawn"):
        grid.add_column(name, justify="right")
    for name, one in judged.values.items():
        cells = [
            f"{found.value:.4f} ({found.interval.low:.4f} to {found.interval.high:.4f})"
            for found in (one.ips, one.doubly_robust)
        ]
        grid.add_row(Text(name), *cells, str(one.matched), f"{one.supported:.1%}")
    head = f"\nright answers by feedback: {judged.requests} judged requests, drawn by exploration"
    out.print(head, markup=False)
    out.print(grid)


def list_notes(group: ProfileResults, found: ReplayRequests) -> list[str]:
    """Return the assumptions and caveats of the results."""
    size = group.requests
    load = (
        "at unchanged load: a plan that moves traffic changes what requests cost where it goes, "
        "and no interval here has that in it; an experiment does (joulegate savings)"
    )
    said = ["(…) is the 95% interval over requests (bootstrap)", load]
    if group.uncertain:
        said[0] += "; {…} includes the uncertainty of the profile's coefficients"
    if group.certain:
        said.append(
            f"no covariance in the profile for {', '.join(group.certain)}: {{…}} takes their "
            "coefficients as exact"
            if group.uncertain
            else "the profile has no covariance: its coefficients are taken as exact"
        )
    if group.recorded_lengths:
        rest = size - group.recorded_lengths
        more = f", {rest} by expected ones" if rest else ""
        said.append(
            f"{group.recorded_lengths} requests are costed by their recorded tokens{more}; other "
            "models are assumed to answer with as many"
        )
    else:
        said.append("costed by expected tokens out")
    if found.kind == LOG and not any(one.name == "as recorded" for one in group.outcomes):
        said.append(
            "no comparison with the recorded choices: --model excludes a model that answered then"
        )
    if group.unserved:
        said.append(f"{group.unserved} requests left out: some plan has no model that they fit")
    for model, count in group.outgrown.items():
        said.append(
            f"{count} requests exceed the context of {model}: always {model} is costed as if it "
            "could serve them"
        )
    if group.floored:
        said.append(f"{group.floored} predictions were not above zero and are floored")
    observed = group.observed
    if observed.get("seconds_n"):
        text = f"measured then: {observed['seconds_per_request']:.4g} s per request"
        if observed["joules_n"]:
            text += f", {observed['joules_per_request']:.4g} J ({observed['joules_n']} metered)"
        said.append(text)
    return said


def build_report(
    found: ReplayRequests, groups: list[ProfileResults], *, replicates: int, seed: int
) -> dict[str, Any]:
    """Return the results as JSON; costs are means per request."""
    return {
        "file": found.name,
        "kind": found.kind,
        "lines": found.lines,
        "requests": len(found.requests),
        "bad": [
            {"reason": reason, "count": count, "first": found.first_bad[reason]}
            for reason, count in found.bad.most_common()
        ],
        "left_out": _build_reasons(found.left_out),
        "replicates": replicates,
        "seed": seed,
        "profiles": [
            {
                "profile_version": group.profile.version,
                "requests": group.requests,
                "unserved": group.unserved,
                "recorded_lengths": group.recorded_lengths,
                "floored": group.floored,
                "outgrown": group.outgrown,
                "covariance": {"models": group.uncertain, "missing": group.certain},
                "observed": group.observed,
                "judged": group.judged and group.judged.to_json(),
                "plans": [_build_outcome(one, group.requests) for one in group.outcomes],
                "savings": [_build_saving(one) for one in group.savings],
                "notes": list_notes(group, found),
            }
            for group in groups
        ],
    }


def _build_outcome(one: PlanOutcome, size: int) -> dict[str, Any]:
    return {
        "name": one.name,
        "shares": {model: share.as_json() for model, share in one.shares.items()},
        "joules_per_request": one.joules.as_json(),
        "seconds_per_request": one.seconds.as_json(),
        "accuracy": one.accuracy.as_json(),
        "total": {"joules": one.joules.value * size, "seconds": one.seconds.value * size},
    }


def _build_saving(one: PlanSaving) -> dict[str, Any]:
    return {
        "plan": one.plan,
        "against": one.against,
        "assumes": "unchanged load",
        "joules_saved_per_request": one.joules.as_json(),
        "seconds_saved_per_request": one.seconds.as_json(),
        "accuracy_gained": one.accuracy.as_json(),
        "changed_share": one.changed.as_json(),
    }


def _build_reasons(counts: Counter[str]) -> list[dict[str, Any]]:
    return [{"reason": reason, "count": count} for reason, count in counts.most_common()]


def _format_counts(found: ReplayRequests) -> str:
    parts = [f"{len(found.requests)} requests of {found.lines} lines"]
    parts += [f"{count} left out: {reason}" for reason, count in found.left_out.most_common()]
    parts += [
        f"{count} bad: {reason} (first: {found.first_bad[reason]})"
        for reason, count in found.bad.most_common()
    ]
    return "; ".join(parts)


def _format_number(one: IntervalEstimate) -> str:
    low, high = one.requests
    text = f"{one.value:.4g} ({low:.4g} to {high:.4g})"
    return text + (f"\n{{{one.both.low:.4g} to {one.both.high:.4g}}}" if one.both else "")


def _format_percent(one: IntervalEstimate) -> str:
    low, high = one.requests
    text = f"{one.value:.1%} ({low:.1%} to {high:.1%})"
    return text + (f"\n{{{one.both.low:.1%} to {one.both.high:.1%}}}" if one.both else "")


def _format_share(one: IntervalEstimate, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    low, high = one.requests
    return f"{one.value:{sign}.4f} ({low:{sign}.4f} to {high:{sign}.4f})"
