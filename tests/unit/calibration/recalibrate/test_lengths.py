"""A log-normal of answer lengths from sums, most of its values cut by limits."""

import numpy as np
import pytest

from calibration.recalibrate import lengths
from calibration.recalibrate.sums import SumBlock
from gateway.scheduling.regression_terms import OUTPUT
from tests.unit.calibration.recalibrate.sums_of_rows import lengths as terms_of

MU, SIGMA = 5.4, 0.8


def block(o, cut):
    each = terms_of(np.asarray(o, dtype=float), np.asarray(cut))
    return SumBlock(OUTPUT, each.sum(axis=0)[None], np.zeros(1))


def draw(size, seed, limits=(64, 128, 256, 512), capped=0.8):
    """Answers of which a share is asked for with a limit."""
    rng = np.random.default_rng(seed)
    o = np.maximum(1.0, np.rint(rng.lognormal(MU, SIGMA, size)))
    limit = np.where(rng.random(size) < capped, rng.choice(limits, size), 1e6)
    return np.minimum(o, limit), o >= limit


@pytest.mark.parametrize(("size", "spread"), [(30, 0.25), (300, 0.09), (3000, 0.03)])
def test_the_mean_is_unbiased_and_known_as_well_as_it_can_be(size, spread):
    truth = np.exp(MU + SIGMA**2 / 2)
    found = []
    for seed in range(200):
        o, cut = draw(size, seed, capped=0.5)
        if not cut.all():
            found.append(lengths.fit_lengths(block(o, cut)).mean / truth)
    logs = np.log(found)
    assert abs(logs.mean()) < 0.05
    assert logs.std() < spread


def test_limits_make_nothing_shorter():
    o, cut = draw(20_000, 1)
    assert cut.mean() > 0.4
    found = lengths.fit_lengths(block(o, cut))
    assert found.mu == pytest.approx(MU, abs=0.03)
    assert found.sigma == pytest.approx(SIGMA, abs=0.03)
    assert (found.n, found.censored) == (20_000, cut.sum())
    # The whole answers alone would say a quarter less.
    assert np.exp(np.log(o[~cut]).mean()) < 0.8 * np.exp(found.mu)


def test_without_limits_it_is_the_mean_and_the_deviation():
    o, _ = draw(500, 2, capped=0.0)
    found = lengths.fit_lengths(block(o, np.zeros(500, dtype=bool)))
    assert found.mu == pytest.approx(np.log(o).mean())
    assert found.sigma == pytest.approx(np.log(o).std())
    assert found.mu_error == pytest.approx(found.sigma / 500**0.5)
    assert found.sigma_error == pytest.approx(found.sigma / 1000**0.5)


def test_errors_are_what_repetition_scatters_by():
    fits = [lengths.fit_lengths(block(*draw(400, seed))) for seed in range(200)]
    scatter = np.std([one.mu for one in fits])
    assert np.mean([one.mu_error for one in fits]) == pytest.approx(scatter, rel=0.15)
    scatter = np.std([one.sigma for one in fits])
    assert np.mean([one.sigma_error for one in fits]) == pytest.approx(scatter, rel=0.15)


def test_pings_of_one_token_tell_nothing():
    o, cut = draw(2000, 5)
    pings = np.ones(40_000)
    found = lengths.fit_lengths(block(np.append(o, pings), np.append(cut, pings > 0)))
    alone = lengths.fit_lengths(block(o, cut))
    assert found.mu == pytest.approx(alone.mu, abs=1e-3)
    assert found.sigma == pytest.approx(alone.sigma, abs=1e-3)


def test_answers_of_one_length():
    found = lengths.fit_lengths(block(np.full(100, 50.0), np.zeros(100, dtype=bool)))
    assert found.mean == pytest.approx(50.0, rel=1e-3)
    assert np.isfinite(found.mu_error)
