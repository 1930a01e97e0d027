"""From scores to a profile: merged into the models there are, everything else untouched."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from calibration.accuracy.scores import Found, Score
from gateway.profile import Accuracy, ModelProfile

DIGITS = 6
"""Shares are written at this precision, far below any interval's width."""


class Change(NamedTuple):
    """One share before and after; `task` None is overall, `old` None was not there."""

    score: Score
    old: float | None

    @property
    def new(self) -> float:
        """The share as the profile has it."""
        return round(self.score.value, DIGITS)

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "model": self.score.model,
            "task": self.score.task,
            "old": self.old,
            "new": self.new,
            "n": self.score.n,
            "interval": list(self.score.interval) if self.score.interval else None,
            "how": self.score.how or None,
        }


def merged(
    models: Mapping[str, ModelProfile], scores: list[Score], found: Found
) -> tuple[dict[str, ModelProfile], list[Change]]:
    """Return all models with these scores in place, and what changed."""
    after, changes = dict(models), []
    for name in dict.fromkeys(score.model for score in scores):
        before = models[name]
        mine = [score for score in scores if score.model == name]
        default, tasks = before.accuracy.default, dict(before.accuracy.tasks)
        for score in mine:
            change = Change(score, _old(before.accuracy, score.task))
            changes.append(change)
            if score.task is None:
                default = change.new
            else:
                tasks[score.task] = change.new
        after[name] = msgspec.structs.replace(
            before,
            accuracy=Accuracy(default, tasks),
            provenance={**before.provenance, **_notes(before, mine, found)},
        )
    return after, changes


def _old(accuracy: Accuracy, task: str | None) -> float | None:
    return accuracy.default if task is None else accuracy.tasks.get(task)


def _notes(before: ModelProfile, scores: list[Score], found: Found) -> dict[str, Any]:
    """Say where the shares come from; notes on shares that were not set stay.

    `accuracy` is a line about the overall share, which a later `fit` keeps; `accuracy_measured`
    has every share's source, n and interval.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    files = ", ".join(source["name"] for source in found.sources)
    was = before.provenance.get("accuracy_measured")
    measured: dict[str, Any] = dict(was) if isinstance(was, dict) else {}
    tasks = measured.get("tasks")
    measured["tasks"] = dict(tasks) if isinstance(tasks, dict) else {}
    notes: dict[str, Any] = {"accuracy_measured": measured}
    for score in scores:
        entry = {
            "accuracy": round(score.value, DIGITS),
            "n": score.n,
            "interval_95": [round(end, DIGITS) for end in score.interval or ()] or None,
            "how": score.how or "as the source has it",
            "source": found.kind,
            "files": found.sources,
            "date": date,
        }
        if score.task is None:
            measured["overall"] = entry
            notes["accuracy"] = f"{found.kind} ({files}), {figures(score)}, set {date}"
        else:
            measured["tasks"][score.task] = entry
    return notes


def figures(score: Score) -> str:
    """Return n and interval in words."""
    size = f"n {score.n}" if score.n else "n not stated"
    if score.interval is None:
        return f"{size}, no interval"
    return f"{size}, 95% interval {score.interval.low:.4f} to {score.interval.high:.4f}"
