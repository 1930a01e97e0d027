"""lm-eval's results file: `results.{task}.{metric},{filter}` with its standard error."""

from pathlib import Path
from typing import Any, Final

import msgspec

from calibration.accuracy.scores import AccuracyScore, LoadedScores
from calibration.stats.intervals import compute_normal_interval, compute_wilson_interval
from calibration.tables.columns import BadInput
from calibration.tables.records import read_raw_bytes

METRICS: Final = ("acc_norm", "acc", "exact_match")
"""Taken in this order where none is asked for."""
_FILTERS: Final = ("none", "strict-match", "flexible-extract")


def read_results(
    path: Path, sha256: str, *, model: str, metric: str | None, tasks: dict[str, str]
) -> LoadedScores:
    """Return a results file's scores for `model`; `tasks` maps lm-eval's names to ours.

    With `tasks` only those are taken. Groups (their members stand beside them) are passed over
    unless named. Raises BadInput.
    """
    try:
        whole = msgspec.json.decode(read_raw_bytes(path), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadInput(f"{path}: not a results file of lm-eval: {error}") from None
    results = whole.get("results")
    if not isinstance(results, dict) or not results:
        raise BadInput(f"{path}: not a results file of lm-eval: it has no results")
    missing = [name for name in tasks if name not in results]
    if missing:
        have = ", ".join(results)
        raise BadInput(f"{path}: --task {missing[0]}: no such task; it has: {have}")
    groups = {name for name, members in _get_dict(whole, "group_subtasks").items() if members}
    names = tasks or {name: name for name in results if name not in groups}
    scores = [
        _parse_score(path, name, results[name], _find_sample_size(whole, name), model, ours, metric)
        for name, ours in names.items()
    ]
    notes = [f"{score.task}: {score.interval_method}" for score in scores]
    return LoadedScores(scores, "lm-eval", [{"name": path.name, "sha256": sha256}], notes)


def _parse_score(
    path: Path, name: str, values: Any, n: int | None, model: str, task: str, metric: str | None
) -> AccuracyScore:
    if not isinstance(values, dict):
        raise BadInput(f"{path}: results.{name} is not an object")
    key = _find_metric_key(values, metric)
    if key is None:
        wanted = metric or ", ".join(METRICS)
        have = ", ".join(values) or "nothing"
        raise BadInput(f"{path}: results.{name} has no {wanted} (it has: {have}); say --metric")
    value = values[key]
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        raise BadInput(f"{path}: results.{name}.{key}: {value!r} is not a share from 0 to 1")
    kind, comma, rest = key.partition(",")
    stderr = values.get(f"{kind}_stderr{comma}{rest}")
    known = isinstance(stderr, int | float) and not isinstance(stderr, bool)
    interval = (
        compute_normal_interval(float(value), float(stderr))
        if known and stderr is not None
        else None
    )
    how = f"lm-eval's {key}" + (f" +- 1.96 x {stderr:.4g}" if interval else ", no standard error")
    if n and (
        interval is None or not stderr
    ):  # all right, all wrong, or not told: no reason to be certain
        interval, how = compute_wilson_interval(float(value) * n, n), f"lm-eval's {key}, Wilson"
    return AccuracyScore(model, task, float(value), n, interval, how)


def _find_metric_key(values: dict[str, Any], metric: str | None) -> str | None:
    """Return the key of the metric: as asked, with its filter or the first one there is."""
    for wanted in (metric,) if metric else METRICS:
        if wanted in values:
            return wanted
        found = [key for key in values if key.partition(",")[0] == wanted]
        for key in [f"{wanted},{name}" for name in _FILTERS] + found:
            if key in found:
                return key
    return None


def _find_sample_size(whole: dict[str, Any], name: str) -> int | None:
    counts = _get_dict(whole, "n-samples").get(name)
    size = counts.get("effective") if isinstance(counts, dict) else None
    size = size or _get_dict(_get_dict(whole, "results"), name).get("sample_len")
    return size if isinstance(size, int) and size > 0 else None


def _get_dict(whole: dict[str, Any], name: str) -> dict[str, Any]:
    value = whole.get(name)
    return value if isinstance(value, dict) else {}
