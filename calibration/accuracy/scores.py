"""Shares of right answers, whichever way they were had: per task, and overall."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from calibration.stats.intervals import (
    ConfidenceInterval,
    compute_mean_interval,
    compute_wilson_interval,
)
from calibration.tables.columns import BadInput

POOLED = "pooled"
MEAN = "mean"
KEEP = "keep"
OVERALL_CHOICES = (POOLED, MEAN, KEEP)


class AccuracyScore(NamedTuple):
    """One model's share of right answers; `task` None is overall; n and interval where known."""

    model: str
    task: str | None
    value: float
    n: int | None = None
    interval: ConfidenceInterval | None = None
    interval_method: str = ""
    """How the interval was had."""


@dataclass(slots=True)
class LoadedScores:
    """What a source says; `sources` names its files, with hashes."""

    scores: list[AccuracyScore]
    kind: str
    sources: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def model_names(self) -> list[str]:
        """The models there are scores of, in order."""
        return list(dict.fromkeys(score.model for score in self.scores))


class CorrectAnswerCounts:
    """Counts right answers by model and task."""

    def __init__(self) -> None:
        self._marks: dict[str, dict[str, tuple[float, int]]] = {}

    def add_mark(self, model: str, task: str, mark: float) -> None:
        """Count one prompt; `mark` is from 0 (wrong) to 1 (right), `task` "" where it has none."""
        tasks = self._marks.setdefault(model, {})
        correct, n = tasks.get(task, (0.0, 0))
        tasks[task] = correct + mark, n + 1

    def compute_scores(self) -> list[AccuracyScore]:
        """Return each model's score overall (pooled) and per task, with Wilson intervals."""
        found = []
        for model, tasks in self._marks.items():
            total = sum(n for _, n in tasks.values())
            found.append(_build_wilson_score(model, None, sum(c for c, _ in tasks.values()), total))
            found += [
                _build_wilson_score(model, task, *counts)
                for task, counts in sorted(tasks.items())
                if task
            ]
        return found


def _build_wilson_score(model: str, task: str | None, correct: float, n: int) -> AccuracyScore:
    # A sum of thirds may come out a hair above n.
    correct = min(correct, float(n))
    return AccuracyScore(model, task, correct / n, n, compute_wilson_interval(correct, n), "Wilson")


def select_scores(
    found: LoadedScores, names: Mapping[str, str], known: Iterable[str]
) -> list[AccuracyScore]:
    """Return the scores under their profile keys; `names` maps a key to the source's name.

    Without `names` every model of the source must be in the profile. Raises BadInput.
    """
    have = ", ".join(found.model_names)
    in_profile = sorted(known)
    keys = {text: key for key, text in names.items()} or {name: name for name in found.model_names}
    for text, key in keys.items():
        if text not in found.model_names:
            raise BadInput(f"--model {key}={text}: the source has no such model (it has: {have})")
        if key not in in_profile:
            raise BadInput(
                f"no model {key!r} in the profile (it has: {', '.join(in_profile)}); "
                f"to set the accuracy of one of them: --model {in_profile[0]}={text}"
            )
    return [
        score._replace(model=keys[score.model]) for score in found.scores if score.model in keys
    ]


def add_overall_scores(
    scores: list[AccuracyScore], how: str, notes: list[str]
) -> list[AccuracyScore]:
    """Return the scores with each model's overall as `how` has it.

    `pooled`: the source's own overall, else its tasks weighted by n; `mean`: the tasks' unweighted
    mean; `keep`: none, so that the profile's stays.
    """
    found: list[AccuracyScore] = []
    for model in dict.fromkeys(score.model for score in scores):
        tasks = [score for score in scores if score.model == model and score.task is not None]
        given = [score for score in scores if score.model == model and score.task is None]
        overall: AccuracyScore | None = given[0] if given and how == POOLED else None
        if how == MEAN and tasks:
            overall = _average_tasks(model, tasks)
        elif how == MEAN:
            overall = given[0]
            notes.append(f"{model}: no tasks to take the mean of; the source's overall is taken")
        elif how == POOLED and overall is None:
            overall = _pool_tasks(model, tasks)
            if overall is None:
                notes.append(
                    f"{model}: overall left as it was: the source has none, and no n to weight its "
                    f"tasks by (--overall {MEAN} takes their mean)"
                )
        found += [overall, *tasks] if overall else tasks
    return found


def _average_tasks(model: str, tasks: list[AccuracyScore]) -> AccuracyScore:
    value = sum(task.value for task in tasks) / len(tasks)
    counted = _list_known_sizes(tasks)
    if len(counted) < len(tasks):
        return AccuracyScore(model, None, value, None, None, f"mean of {len(tasks)} tasks")
    interval = compute_mean_interval(counted)
    n = sum(n for _, n in counted)
    return AccuracyScore(model, None, value, n, interval, f"mean of {len(tasks)} tasks, normal")


def _pool_tasks(model: str, tasks: list[AccuracyScore]) -> AccuracyScore | None:
    sizes = _list_known_sizes(tasks)
    if len(sizes) < len(tasks):
        return None
    n = sum(size for _, size in sizes)
    correct = min(sum(share * size for share, size in sizes), float(n))
    how = f"Wilson, {len(tasks)} tasks weighted by n"
    return AccuracyScore(model, None, correct / n, n, compute_wilson_interval(correct, n), how)


def _list_known_sizes(tasks: list[AccuracyScore]) -> list[tuple[float, int]]:
    """Return (share, n) of those tasks whose n is known."""
    return [(task.value, n) for task in tasks if (n := task.n) is not None]
