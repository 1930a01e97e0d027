"""What held-out predictions are worth, overall and by group of tasks, beside the baselines."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibration.accuracy.routing_curves import (
    QualityCostCurve,
    compute_ece,
    draw_curve,
    list_reliability,
    shuffle_apgr,
)
from calibration.accuracy.train import TrainedAccuracy
from calibration.arrays import Floats

_LEAST_GROUP = 200
_SHARES = (0.95, 0.97)
_CURVE_POINTS = 41


def judge_predictions(
    trained: TrainedAccuracy,
    scores: Floats,
    names: Sequence[str],
    costs: Floats,
    tasks: Sequence[str] | None,
) -> dict[str, Any]:
    """Return every figure of a training run as JSON takes it.

    Curves count only prompts that every model has a label for.
    """
    full = np.asarray(np.isfinite(scores).all(axis=1))
    groups: dict[str, np.ndarray] = {"overall": full}
    if tasks is not None:
        tops = np.array([task.partition("/")[0] for task in tasks])
        for top in sorted(set(tops)):
            rows = full & (tops == top)
            if rows.sum() >= _LEAST_GROUP and rows.sum() < full.sum():
                groups[top] = rows
    return {
        "models": {
            name: _judge_model(trained, scores, at, groups) for at, name in enumerate(names)
        },
        "costs": dict(zip(names, costs.tolist(), strict=True)),
        "routing": {
            name: _judge_routing(trained, scores, costs, rows)
            for name, rows in groups.items()
            if len(names) > 1 and rows.sum() >= _LEAST_GROUP
        },
    }


def _judge_model(
    trained: TrainedAccuracy, scores: Floats, at: int, groups: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    labelled = np.isfinite(scores[:, at])
    predicted, observed = trained.predicted[labelled, at], scores[labelled, at]
    bins = list_reliability(predicted, observed)
    return {
        "n": int(labelled.sum()),
        "share": float(observed.mean()),
        "brier": float(((predicted - observed) ** 2).mean()),
        "brier_of_the_share": float(((observed.mean() - observed) ** 2).mean()),
        "ece": compute_ece(bins),
        "ece_by_group": {
            name: compute_ece(list_reliability(trained.predicted[rows, at], scores[rows, at]))
            for name, rows in groups.items()
            if rows.any()
        },
        "reliability": [one._asdict() for one in bins],
    }


def _judge_routing(
    trained: TrainedAccuracy, scores: Floats, costs: Floats, rows: np.ndarray
) -> dict[str, Any]:
    predicted, seen = trained.predicted[rows], scores[rows]
    curve = draw_curve(predicted, seen, costs)
    found = {
        "n": int(rows.sum()),
        "always_cheapest": curve.weak,
        "always_most_accurate": curve.strong,
        "trained": _describe(curve),
        "random": {"apgr": 0.5, "aiq": (curve.weak + curve.strong) / 2.0},
        "shuffled_mean_of_20": {"apgr": shuffle_apgr(predicted, seen, costs)},
        "oracle": _describe(draw_curve(seen, seen, costs)),
    }
    if trained.table is not None:
        found["task_table"] = _describe(draw_curve(trained.table[rows], seen, costs))
    return found


def _describe(curve: QualityCostCurve) -> dict[str, Any]:
    at = np.unique(np.linspace(0, len(curve.cost) - 1, _CURVE_POINTS).astype(int))
    return {
        "apgr": curve.apgr,
        "aiq": curve.aiq,
        **{f"cost_at_{share:.0%}": curve.find_cost(share) for share in _SHARES},
        "curve": [[float(curve.cost[one]), float(curve.quality[one])] for one in at],
    }
