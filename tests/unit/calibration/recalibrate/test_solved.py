"""Errors of coefficients where neighbouring blocks of time share a server's state."""

import numpy as np
import pytest

from calibration.recalibrate.solved import ClusterRobustFit

BLOCKS, SCRAPES_EACH = 12, 20


def make_fit(influences, known=0.0):
    """Return a fit of one coefficient, which is the influences' sum."""
    given = np.asarray(influences, dtype=float).reshape(-1, 1)
    count = len(given)
    own = (given - given.mean()) * np.sqrt(count / (count - 1.0))
    return ClusterRobustFit(
        coefficients=given.sum(axis=0), influences=own, known=np.array([[known]]),
        covariance=own.T @ own + known, freedom=count - 1, n=1000, clusters=count, r2=0.0, rmse=1.0,
        condition=1.0, prior_share=np.zeros(1),
    )  # fmt: skip


def draw_blocks(rng, share):
    """Return the means of blocks of scrapes, each scrape's state following the last at `share`."""
    count = BLOCKS * SCRAPES_EACH
    steps = rng.normal(0.0, (1.0 - share**2) ** 0.5, count)
    state = [rng.normal()]
    for step in steps[1:]:
        state.append(share * state[-1] + step)
    return np.array(state).reshape(BLOCKS, SCRAPES_EACH).mean(axis=1) / BLOCKS


def count_held(share, runs=2000):
    """Return the shares of 95% intervals that hold the truth, 0: of the two kinds."""
    held = np.zeros(2)
    rng = np.random.default_rng(1)
    for _ in range(runs):
        plain = make_fit(draw_blocks(rng, share))
        held += [one.low[0] <= 0.0 <= one.high[0] for one in (plain, plain.smooth_over_time())]
    return held / runs


def test_a_state_that_outlasts_a_block_is_allowed_for():
    """The theory: 87% for independent blocks of 20 scrapes at 0.9, 93% for six cosines."""
    plain, smoothed = count_held(0.9)
    assert plain < 0.89
    assert smoothed > 0.91


def test_independent_blocks_lose_nothing_but_degrees_of_freedom():
    _, smoothed = count_held(0.0)
    assert smoothed == pytest.approx(0.95, abs=0.015)


def test_the_variance_of_independent_blocks_is_the_same_in_the_mean_but_for_the_correction():
    rng = np.random.default_rng(2)
    found = np.zeros(2)
    for _ in range(2000):
        influences = rng.normal(size=BLOCKS)
        fit = make_fit(influences)
        found += [fit.covariance[0, 0], fit.smooth_over_time().covariance[0, 0]]
    assert found[1] / found[0] == pytest.approx(BLOCKS / (BLOCKS - 1.0), abs=0.03)


def test_what_a_prior_leaves_open_stays_in_the_errors():
    fit = make_fit(np.zeros(BLOCKS), known=4.0).smooth_over_time()
    assert fit.standard_errors == pytest.approx([2.0])
    assert fit.freedom == BLOCKS // 2


@pytest.mark.parametrize("count", [2, 3])
def test_few_blocks_have_one_degree_of_freedom(count):
    fit = make_fit(np.arange(count)).smooth_over_time()
    assert fit.freedom == 1
    assert np.isfinite(fit.high).all()
