"""What training found, as the profile holds it: heads in floats, the classifier in bytes."""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calibration.accuracy.joint_calibration import CalibratedModels
from calibration.accuracy.ridge import PromptMatrix
from calibration.arrays import Floats
from gateway.accuracy_profile import (
    AccuracyByPrompt,
    HeadWeights,
    KindsTable,
    pack_floats,
)
from gateway.scheduling.prompt_accuracy import NO_WEIGHT_BYTE
from gateway.scheduling.text_features import WORD_BUCKETS

_BYTE_STEPS = 127


class TrainedHeads(NamedTuple):
    """Trained on some rows: weights of all heads, and of the kinds."""

    weights: Floats
    bias: Floats
    kind_weights: Floats | None
    kind_bias: Floats | None
    shares: Floats | None
    """Kinds x models."""


def export_accuracy(
    matrix: PromptMatrix,
    whole: TrainedHeads,
    scores: Floats,
    calibrated: CalibratedModels,
    names: Sequence[str],
    kind_names: list[str],
    penalty: float,
    mix: float,
    sharpness: float | None,
) -> AccuracyByPrompt:
    """Return the model for the profile; `scores` are prompts x models."""
    squared = matrix.words.multiply(matrix.words).tocsr()
    seen = np.asarray(squared.sum(axis=0)).ravel()
    variance = penalty / (penalty + seen)
    # A row's own words do not make it known: each is left out of its own distance.
    left = squared.tocoo()
    own = penalty / (penalty + seen[left.col] - left.data) * left.data
    distance = np.bincount(left.row, own, len(scores))
    residual = float(np.nanmean((calibrated.predicted - scores) ** 2))
    words, form = matrix.split_weights(whole.weights)
    kinds = None
    if sharpness is not None:
        kinds = _export_kinds(matrix, whole, kind_names, sharpness)
    heads = {}
    for at, name in enumerate(names):
        asked = np.isfinite(scores[:, at])
        shares = [] if whole.shares is None else whole.shares[:, at].tolist()
        heads[name] = HeadWeights(
            bias=float(whole.bias[at]),
            static=float(scores[asked, at].mean()),
            words=pack_floats(array("f", words[:, at].tolist())),
            form=form[:, at].tolist(),
            calibration=calibrated.points[at] if calibrated.points else [],
            joint=calibrated.surfaces[at] if calibrated.surfaces else None,
            kinds=shares if kinds is not None else [],
            n=int(asked.sum()),
        )
    return AccuracyByPrompt(
        heads=heads,
        means=matrix.means.tolist(),
        deviations=matrix.deviations.tolist(),
        variance=pack_floats(array("f", variance.tolist())),
        familiar=float(min(0.95, np.quantile(distance, 0.95))),
        noise=float(min(0.5, (residual / penalty) ** 0.5)),
        mix=mix,
        kinds=kinds,
    )


def _export_kinds(
    matrix: PromptMatrix, whole: TrainedHeads, names: list[str], sharpness: float
) -> KindsTable:
    """Return the classifier in bytes: words that two prompts or more have, 127 steps each way."""
    assert whole.kind_weights is not None  # noqa: S101 - there are kinds
    assert whole.kind_bias is not None  # noqa: S101
    often = np.flatnonzero(np.bincount(matrix.words.indices, minlength=WORD_BUCKETS) > 1)
    weights = whole.kind_weights[often] * sharpness
    scales = np.maximum(np.abs(weights).max(axis=0, initial=0.0), 1e-9) / _BYTE_STEPS
    steps = np.round(weights / scales) + NO_WEIGHT_BYTE
    return KindsTable(
        names=names,
        bias=(whole.kind_bias * sharpness).tolist(),
        scales=scales.tolist(),
        words=often.astype("<u2").tobytes(),
        weights=steps.astype(np.uint8).tobytes(),
    )
