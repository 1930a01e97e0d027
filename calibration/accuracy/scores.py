"""Shares of right answers, whichever way they were had: per task, and overall."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from calibration.stats.intervals import Interval, mean_of_shares, wilson
from calibration.tables.columns import BadInput

POOLED = "pooled"
MEAN = "mean"
KEEP = "keep"
OVERALLS = (POOLED, MEAN, KEEP)


class Score(NamedTuple):
    """One model's share of right answers; `task` None is overall; n and interval where known."""

    model: str
    task: str | None
    value: float
    n: int | None = None
    interval: Interval | None = None
    how: str = ""
    """How the interval was had."""


@dataclass(slots=True)
class Found:
    """What a source says; `sources` names its files, with hashes."""

    scores: list[Score]
    kind: str
    sources: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models there are scores of, in order."""
        return list(dict.fromkeys(score.model for score in self.scores))


class Marks:
    """Counts right answers by model and task."""

    def __init__(self) -> None:
        self._marks: dict[str, dict[str, tuple[float, int]]] = {}

    def add(self, model: str, task: str, mark: float) -> None:
        """Count one prompt; `mark` is from 0 (wrong) to 1 (right), `task` "" where it has none."""
        tasks = self._marks.setdefault(model, {})
        correct, n = tasks.get(task, (0.0, 0))
        tasks[task] = correct + mark, n + 1

    def scores(self) -> list[Score]:
        """Return each model's score overall (pooled) and per task, with Wilson intervals."""
        found = []
        for model, tasks in self._marks.items():
            total = sum(n for _, n in tasks.values())
            found.append(_wilson(model, None, sum(c for c, _ in tasks.values()), total))
            found += [
                _wilson(model, task, *counts) for task, counts in sorted(tasks.items()) if task
            ]
        return found


def _wilson(model: str, task: str | None, correct: float, n: int) -> Score:
    # A sum of thirds may come out a hair above n.
    correct = min(correct, float(n))
    return Score(model, task, correct / n, n, wilson(correct, n), "Wilson")


def chosen(found: Found, names: Mapping[str, str], known: Iterable[str]) -> list[Score]:
    """Return the scores under their profile keys; `names` maps a key to the source's name.

    Without `names` every model of the source must be in the profile. Raises BadInput.
    """
    have = ", ".join(found.models)
    in_profile = sorted(known)
    keys = {text: key for key, text in names.items()} or {name: name for name in found.models}
    for text, key in keys.items():
        if text not in found.models:
            raise BadInput(f"--model {key}={text}: the source has no such model (it has: {have})")
        if key not in in_profile:
            raise BadInput(
                f"no model {key!r} in the profile (it has: {', '.join(in_profile)}); "
                f"to set the accuracy of one of them: --model {in_profile[0]}={text}"
            )
    return [
        score._replace(model=keys[score.model]) for score in found.scores if score.model in keys
    ]


def with_overall(scores: list[Score], how: str, notes: list[str]) -> list[Score]:
    """Return the scores with each model's overall as `how` has it.

    `pooled`: the source's own overall, else its tasks weighted by n; `mean`: the tasks' unweighted
    mean; `keep`: none, so that the profile's stays.
    """
    found: list[Score] = []
    for model in dict.fromkeys(score.model for score in scores):
        tasks = [score for score in scores if score.model == model and score.task is not None]
        given = [score for score in scores if score.model == model and score.task is None]
        overall: Score | None = given[0] if given and how == POOLED else None
        if how == MEAN and tasks:
            overall = _mean(model, tasks)
        elif how == MEAN:
            overall = given[0]
            notes.append(f"{model}: no tasks to take the mean of; the source's overall is taken")
        elif how == POOLED and overall is None:
            overall = _pooled(model, tasks)
            if overall is None:
                notes.append(
                    f"{model}: overall left as it was: the source has none, and no n to weight its "
                    f"tasks by (--overall {MEAN} takes their mean)"
                )
        found += [overall, *tasks] if overall else tasks
    return found


def _mean(model: str, tasks: list[Score]) -> Score:
    value = sum(task.value for task in tasks) / len(tasks)
    counted = _sizes(tasks)
    if len(counted) < len(tasks):
        return Score(model, None, value, None, None, f"mean of {len(tasks)} tasks")
    interval = mean_of_shares(counted)
    n = sum(n for _, n in counted)
    return Score(model, None, value, n, interval, f"mean of {len(tasks)} tasks, normal")


def _pooled(model: str, tasks: list[Score]) -> Score | None:
    sizes = _sizes(tasks)
    if len(sizes) < len(tasks):
        return None
    n = sum(size for _, size in sizes)
    correct = min(sum(share * size for share, size in sizes), float(n))
    how = f"Wilson, {len(tasks)} tasks weighted by n"
    return Score(model, None, correct / n, n, wilson(correct, n), how)


def _sizes(tasks: list[Score]) -> list[tuple[float, int]]:
    """Return (share, n) of those tasks whose n is known."""
    return [(task.value, n) for task in tasks if (n := task.n) is not None]
