"""From scores to a profile: merged into the models there are, everything else untouched."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from calibration.accuracy.scores import AccuracyScore, LoadedScores
from gateway.profile import AccuracyProfile, ModelProfile
from gateway.utc_time import format_now

SHARE_DIGITS = 6
"""Shares are written at this precision, far below any interval's width."""


class AccuracyChange(NamedTuple):
    """One share before and after; `task` None is overall, `old_share` None was not there."""

    score: AccuracyScore
    old_share: float | None

    @property
    def new_share(self) -> float:
        """The share as the profile has it."""
        return round(self.score.value, SHARE_DIGITS)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "model": self.score.model,
            "task": self.score.task,
            "old": self.old_share,
            "new": self.new_share,
            "n": self.score.n,
            "interval": list(self.score.interval) if self.score.interval else None,
            "how": self.score.interval_method or None,
        }


def merge_scores(
    models: Mapping[str, ModelProfile], scores: list[AccuracyScore], found: LoadedScores
) -> tuple[dict[str, ModelProfile], list[AccuracyChange]]:
    """Return all models with these scores in place, and what changed."""
    after, changes = dict(models), []
    for name in dict.fromkeys(score.model for score in scores):
        before = models[name]
        mine = [score for score in scores if score.model == name]
        default, tasks = before.accuracy.default, dict(before.accuracy.tasks)
        for score in mine:
            change = AccuracyChange(score, _find_old_share(before.accuracy, score.task))
            changes.append(change)
            if score.task is None:
                default = change.new_share
            else:
                tasks[score.task] = change.new_share
        after[name] = msgspec.structs.replace(
            before,
            accuracy=AccuracyProfile(default, tasks),
            provenance={**before.provenance, **_build_provenance(before, mine, found)},
        )
    return after, changes


def _find_old_share(accuracy: AccuracyProfile, task: str | None) -> float | None:
    return accuracy.default if task is None else accuracy.tasks.get(task)


def _build_provenance(
    before: ModelProfile, scores: list[AccuracyScore], found: LoadedScores
) -> dict[str, Any]:
    """Say where the shares come from; notes on shares that were not set stay.

    `accuracy` is a line about the overall share, which a later `fit` keeps; `accuracy_measured`
    has every share's source, n and interval.
    """
    date = format_now()
    files = ", ".join(source["name"] for source in found.sources)
    was = before.provenance.get("accuracy_measured")
    measured: dict[str, Any] = dict(was) if isinstance(was, dict) else {}
    tasks = measured.get("tasks")
    measured["tasks"] = dict(tasks) if isinstance(tasks, dict) else {}
    notes: dict[str, Any] = {"accuracy_measured": measured}
    for score in scores:
        entry = {
            "accuracy": round(score.value, SHARE_DIGITS),
            "n": score.n,
            "interval_95": [round(end, SHARE_DIGITS) for end in score.interval or ()] or None,
            "how": score.interval_method or "as the source has it",
            "source": found.kind,
            "files": found.sources,
            "date": date,
        }
        if score.task is None:
            measured["overall"] = entry
            notes["accuracy"] = f"{found.kind} ({files}), {describe_interval(score)}, set {date}"
        else:
            measured["tasks"][score.task] = entry
    return notes


def describe_interval(score: AccuracyScore) -> str:
    """Return n and interval in words."""
    size = f"n {score.n}" if score.n else "n not stated"
    if score.interval is None:
        return f"{size}, no interval"
    return f"{size}, 95% interval {score.interval.low:.4f} to {score.interval.high:.4f}"
