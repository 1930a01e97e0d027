"""Train accuracy by prompt: a linear head per model, kinds of prompt, calibration, all held out.

Rules of this file:

- Features are those that serve (`gateway.scheduling.text_features`). A head is a ridge regression
  of the labels; where prompts have tasks, half of a label is its task's share of right answers,
  which takes noise out of single labels (the other half still tells prompts of a task apart).
- Kinds of prompt are the tasks of the labels, told apart by a ridge of their indicators and a
  softmax whose sharpness is fitted. Beyond `MOST_KINDS`, the smallest are `other`.
- The heads' part of the mixture is the one that errs least in the differences between models.
- Every figure and every calibration comes from rows that the fold in question had not seen.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from calibration.accuracy.joint_calibration import CALIBRATIONS, calibrate_models
from calibration.accuracy.ridge import PromptMatrix, solve_ridge
from calibration.accuracy.trained_heads import TrainedHeads, export_accuracy
from calibration.arrays import Floats
from gateway.accuracy_profile import (
    MOST_KINDS,
    AccuracyByPrompt,
)
from gateway.scheduling.text_features import TextFeatures

FOLDS = 5
LEAST_ROWS = 50
FORMS = ("task", "prompt", "mixture")
_PENALTIES = (0.75, 1.5, 3.0, 6.0)
_KIND_PENALTY = 0.5
_KIND_TURNS = 25
_SHARPNESS = (5.0, 10.0, 20.0, 40.0)
_TASK_PART = 0.5
_PRIOR_ROWS = 5.0
_OTHER = "other"
_MIXES = {"task": (0.0,), "prompt": (1.0,), "mixture": (0.3, 0.5, 0.7)}

Progress = Callable[[str, int, int], None]


class TrainedAccuracy(NamedTuple):
    """A model for the profile, and each row's prediction by folds that had not seen it.

    `predicted` is prompts x models, after calibration; `table` what the task's own share would
    have said.
    """

    model: AccuracyByPrompt
    predicted: Floats
    table: Floats | None
    penalty: float
    sharpness: float | None
    calibrations: dict[str, str]


def train_accuracy(
    prompts: Sequence[TextFeatures],
    scores: Floats,
    names: Sequence[str],
    tasks: Sequence[str] | None = None,
    *,
    form: str = "auto",
    calibration: str = "auto",
    seed: int = 0,
    progress: Progress = lambda _what, _at, _of: None,
) -> TrainedAccuracy:
    """Train on prompts x models of scores from 0 to 1, nan where a model was not asked.

    Raises ValueError with too few rows, or where a form needs tasks and there are none.
    """
    _check_labels(scores, names)
    kinds, kind_names = _number_kinds(tasks)
    mixes = _list_mixes(form, kind_names)
    matrix = PromptMatrix(list(prompts))
    rng = np.random.default_rng(seed)
    folds = rng.permutation(len(prompts)) % FOLDS
    penalty = _PENALTIES[1]
    if max(mixes) > 0.0:
        penalty = _choose_penalty(matrix, scores, kinds, folds, progress)
    linear = np.zeros_like(scores)
    logits = np.zeros((len(prompts), len(kind_names)))
    shares = np.zeros((FOLDS, len(kind_names), len(names)))
    for fold in range(FOLDS):
        progress("cross-validating", fold, FOLDS + 1)
        out = folds == fold
        part = _fit(matrix, scores, kinds, ~out, penalty, mixes)
        linear[out] = part.bias + matrix.whole[out] @ part.weights
        if part.kind_weights is not None and part.shares is not None:
            logits[out] = part.kind_bias + matrix.words[out] @ part.kind_weights
            shares[fold] = part.shares
    sharpness = None if min(mixes) == 1.0 else _choose_sharpness(logits, kinds)
    by_kind = np.zeros_like(scores)
    if sharpness is not None:
        likely = _softmax(sharpness * logits)
        for fold in range(FOLDS):
            out = folds == fold
            by_kind[out] = likely[out] @ shares[fold]
    table = _predict_by_table(scores, kinds, folds) if len(kind_names) > 1 else None
    wanted = CALIBRATIONS if calibration == "auto" else (calibration,)
    tried = [
        calibrate_models(mix * linear + (1.0 - mix) * by_kind, scores, folds, wanted)
        for mix in mixes
    ]
    best = int(np.argmin([one.error for one in tried]))
    mix, calibrated = mixes[best], tried[best]
    progress("training on all", FOLDS, FOLDS + 1)
    everyone = np.ones(len(prompts), dtype=bool)
    whole = _fit(matrix, scores, kinds, everyone, penalty, mixes)
    model = export_accuracy(
        matrix, whole, scores, calibrated, names, kind_names, penalty, mix, sharpness
    )
    progress("training on all", FOLDS + 1, FOLDS + 1)
    chosen = dict(zip(names, calibrated.kinds, strict=True))
    return TrainedAccuracy(model, calibrated.predicted, table, penalty, sharpness, chosen)


def _check_labels(scores: Floats, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        labelled = int(np.isfinite(scores[:, at]).sum())
        if labelled < LEAST_ROWS:
            raise ValueError(f"{name}: {labelled} labels, at least {LEAST_ROWS} needed")


def _list_mixes(form: str, kinds: list[str]) -> tuple[float, ...]:
    """Return what the heads' part of a form's prediction may be."""
    if form == "auto":
        form = "mixture" if len(kinds) > 1 else "prompt"
    if form != "prompt" and len(kinds) < 2:  # noqa: PLR2004 - one kind tells nothing
        raise ValueError(f"form {form} needs a column of tasks with two or more of them")
    return _MIXES[form]


def _number_kinds(tasks: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """Return each row's kind by number, and the kinds' names, the largest first."""
    if tasks is None:
        return np.zeros(0, dtype=int), []
    counts = Counter(tasks)
    names = [name for name, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]
    if len(names) > MOST_KINDS:
        names = [*names[: MOST_KINDS - 1], _OTHER]
    place = {name: at for at, name in enumerate(names)}
    return np.array([place.get(task, len(names) - 1) for task in tasks]), names


def _fit(
    matrix: PromptMatrix,
    scores: Floats,
    kinds: np.ndarray,
    rows: np.ndarray,
    penalty: float,
    mixes: tuple[float, ...],
) -> TrainedHeads:
    """Fit heads and kinds on some rows."""
    weights, bias = _fit_heads(matrix, scores, kinds, rows, penalty)
    if min(mixes) == 1.0:
        return TrainedHeads(weights, bias, None, None, None)
    count = int(kinds.max()) + 1
    shown = np.eye(count)[kinds[rows]]
    mean = shown.mean(axis=0)
    found = solve_ridge(matrix.words[rows], shown - mean, _KIND_PENALTY, most_turns=_KIND_TURNS)
    return TrainedHeads(
        weights, bias, found, mean, _share_by_kind(scores[rows], kinds[rows], count)
    )


def _fit_heads(
    matrix: PromptMatrix, scores: Floats, kinds: np.ndarray, rows: np.ndarray, penalty: float
) -> tuple[Floats, Floats]:
    """Return weights (columns x models) and biases."""
    targets = scores.copy()
    if len(kinds):
        shares = _share_by_kind(scores[rows], kinds[rows], int(kinds.max()) + 1)
        targets = (1.0 - _TASK_PART) * scores + _TASK_PART * shares[kinds]
    weights = np.zeros((matrix.whole.shape[1], scores.shape[1]))
    bias = np.zeros(scores.shape[1])
    if np.isfinite(scores[rows]).all():
        bias = targets[rows].mean(axis=0)
        weights = solve_ridge(matrix.whole[rows], targets[rows] - bias, penalty)
        return weights, bias
    for at in range(scores.shape[1]):
        asked = rows & np.isfinite(scores[:, at])
        bias[at] = targets[asked, at].mean()
        wanted = targets[asked, at : at + 1] - bias[at]
        weights[:, at] = solve_ridge(matrix.whole[asked], wanted, penalty)[:, 0]
    return weights, bias


def _share_by_kind(scores: Floats, kinds: np.ndarray, count: int) -> Floats:
    """Return right answers' share per kind and model, drawn towards the model's by a few rows."""
    found = np.zeros((count, scores.shape[1]))
    for at in range(scores.shape[1]):
        asked = np.isfinite(scores[:, at])
        total = np.bincount(kinds[asked], scores[asked, at], count)
        n = np.bincount(kinds[asked], minlength=count)
        found[:, at] = (total + _PRIOR_ROWS * scores[asked, at].mean()) / (n + _PRIOR_ROWS)
    return found


def _predict_by_table(scores: Floats, kinds: np.ndarray, folds: np.ndarray) -> Floats:
    found = np.zeros_like(scores)
    for fold in range(FOLDS):
        out = folds == fold
        found[out] = _share_by_kind(scores[~out], kinds[~out], int(kinds.max()) + 1)[kinds[out]]
    return found


def _choose_penalty(
    matrix: PromptMatrix,
    scores: Floats,
    kinds: np.ndarray,
    folds: np.ndarray,
    progress: Progress,
) -> float:
    """Return the penalty with the least squared error on one held-out fold and another."""
    errors = []
    for at, penalty in enumerate(_PENALTIES):
        progress("choosing the penalty", at, len(_PENALTIES))
        error = 0.0
        for fold in (0, 1):
            out = folds == fold
            weights, bias = _fit_heads(matrix, scores, kinds, ~out, penalty)
            error += float(np.nansum((bias + matrix.whole[out] @ weights - scores[out]) ** 2))
        errors.append(error)
    return _PENALTIES[int(np.argmin(errors))]


def _choose_sharpness(logits: Floats, kinds: np.ndarray) -> float:
    rows = np.arange(len(kinds))
    losses = [
        -float(np.log(_softmax(one * logits)[rows, kinds] + 1e-9).mean()) for one in _SHARPNESS
    ]
    return _SHARPNESS[int(np.argmin(losses))]


def _softmax(values: Floats) -> Floats:
    found = np.exp(values - values.max(axis=1, keepdims=True))
    whole: Floats = found / found.sum(axis=1, keepdims=True)
    return whole
