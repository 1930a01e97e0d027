"""Intervals against published values and by coverage."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from calibration.stats.intervals import (
    compute_mean_interval,
    compute_normal_interval,
    compute_wilson_interval,
)

# Newcombe (1998), Statistics in Medicine 17, table I: Wilson's score method without correction.
KNOWN = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("correct", "n", "low", "high"), KNOWN)
def test_wilson_as_published(correct, n, low, high):
    assert compute_wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_statsmodels():
    for n in (1, 2, 10, 7713):
        for correct in {0, 1, n // 2, n}:
            known = proportion_confint(correct, n, method="wilson")
            assert compute_wilson_interval(correct, n) == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_no_share_no_interval(correct, n):
    with pytest.raises(ValueError, match="is no share"):
        compute_wilson_interval(correct, n)


def test_wilson_covers_a_mean_of_samples():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        chances = rng.beta(2, 1, 100)  # its mean is 2/3
        low, high = compute_wilson_interval(float((rng.binomial(4, chances) / 4).sum()), 100)
        hits += low <= 2 / 3 <= high
    assert hits >= 380


def test_a_standard_error_becomes_an_interval_within_0_and_1():
    assert compute_normal_interval(0.5, 0.1) == pytest.approx((0.304, 0.696), abs=1e-3)
    assert compute_normal_interval(0.99, 0.1) == pytest.approx((0.794, 1.0), abs=1e-3)
    assert compute_normal_interval(0.5, float("nan")) is None


def test_tasks_at_the_edge_do_not_count_as_certain():
    low, high = compute_mean_interval([(1.0, 10), (1.0, 10)])
    assert low < 0.95
    assert high == 1.0
