"""Calibrating models together: the logistic fit, its folding, what is chosen, labels that lack."""

import numpy as np
import pytest

from calibration.accuracy.joint_calibration import (
    CALIBRATIONS,
    calibrate_models,
    evaluate_surface,
    fit_surface,
    measure_difference_error,
)
from calibration.accuracy.routing_curves import compute_ece, draw_curve, list_reliability

COSTS = np.array([1.0, 4.0])
ROWS = 6000


def draw_rows(seed):
    """Return held-out values, labels and folds: the strong model gains in the middle only."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.0, 2.5, ROWS)
    weak = 1.0 / (1.0 + np.exp(-(ease - 1.0)))
    strong = 1.0 / (1.0 + np.exp(-(ease + 1.0)))
    truth = np.stack([weak, strong], axis=1)
    scores = (rng.random((ROWS, 2)) < truth).astype(float)
    # Heads that are linear in what they see, and blurred.
    values = 0.5 + 0.1 * np.stack([ease - 0.5, ease + 0.5], axis=1)
    return values + rng.normal(0.0, 0.05, (ROWS, 2)), scores, rng.permutation(ROWS) % 5


def test_it_is_chosen_where_differences_depend_on_how_hard_a_prompt_is():
    values, scores, folds = draw_rows(0)
    found = calibrate_models(values, scores, folds, CALIBRATIONS)
    assert found.kinds == ["joint", "joint"]
    assert found.points == []
    alone = calibrate_models(values, scores, folds, ("platt", "isotonic"))
    assert found.error < alone.error
    curves = [draw_curve(one.predicted, scores, COSTS) for one in (found, alone)]
    assert curves[0].apgr > curves[1].apgr + 0.02
    for at in (0, 1):
        assert compute_ece(list_reliability(found.predicted[:, at], scores[:, at])) < 0.02


def test_what_a_profile_holds_gives_what_was_held_out():
    values, scores, _ = draw_rows(1)
    surface = fit_surface(values, scores[:, 0], 0)
    shares = evaluate_surface(surface, values, 0)
    served = surface.make()
    for row in range(0, ROWS, 500):
        score, middle = float(values[row, 0]), float(values[row].mean())
        assert served.apply(score, middle) == pytest.approx(shares[row], abs=1e-9)
    # A logistic regression with a constant keeps the sum of its labels.
    assert shares.mean() == pytest.approx(scores[:, 0].mean(), abs=2e-3)


def test_labels_that_lack_and_labels_that_are_all_the_same_are_no_trouble():
    values, scores, folds = draw_rows(2)
    rng = np.random.default_rng(3)
    scores[np.arange(ROWS), rng.integers(0, 2, ROWS)] = np.nan
    found = calibrate_models(values, scores, folds, ("joint",))
    assert found.kinds == ["joint", "joint"]
    assert np.isfinite(found.predicted).all()
    assert found.error == pytest.approx(float(np.nanmean((found.predicted - scores) ** 2)))
    always = calibrate_models(values, np.ones_like(scores), folds, ("joint",))
    assert always.predicted.min() > 0.99


def test_one_model_has_nobody_to_be_calibrated_with():
    values, scores, folds = draw_rows(4)
    found = calibrate_models(values[:, :1], scores[:, :1], folds, ("joint",))
    assert found.kinds[0] in ("platt", "isotonic")
    assert found.surfaces == []


def test_an_error_that_all_models_share_moves_no_prompt_and_counts_for_nothing():
    _, scores, _ = draw_rows(5)
    shared = scores + np.linspace(-0.5, 0.5, ROWS)[:, None]
    assert measure_difference_error(shared, scores) == pytest.approx(0.0, abs=1e-12)
    assert measure_difference_error(scores + np.array([0.2, -0.2]), scores) == pytest.approx(0.04)
