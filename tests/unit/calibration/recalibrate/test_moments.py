"""Least squares from sums against statsmodels on the rows that they are sums of."""

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS, WLS

from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.solved import CoefficientPrior, SingularMoments, compute_wald_test
from calibration.recalibrate.sums import SumBlock, read_blocks
from calibration.recalibrate.variants import build_base_columns
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.regression_terms import COSTS
from tests.unit.calibration.recalibrate.sums_of_rows import (
    ONE,
    by_scrape,
    clusters,
    series,
    terms,
    traffic,
)

COLUMNS = build_base_columns(RegressionForm.LOAD)
"""1, i, o, i·o, z; these rows have weights of 1."""


def check_rows(rows, **how):
    return ClusterMoments.from_block(
        read_blocks(COSTS, series(rows, COSTS, **how))[ONE]
    ).combine_columns(COLUMNS)


def reference(rows, groups):
    return OLS(rows["y"], rows["x"]).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )


def three_instances():
    """Return the moments of three instances with restarts, all their rows, and the clusters."""
    found, parts, groups = [], [], []
    for k, (size, restarts) in enumerate(((900, (400,)), (700, (7, 300)), (500, ()))):
        rows = traffic(size, 10 + k)[0]
        found += series(rows, COSTS, instance=f"gw-{k}", restarts=restarts, every=6 + k)
        parts.append(rows)
        groups.append(clusters(size, 6 + k, restarts) + 1000 * k)
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    block = read_blocks(COSTS, found)[ONE]
    assert block.resets == 3
    return ClusterMoments.from_block(block).combine_columns(COLUMNS), rows, np.concatenate(groups)


def test_three_instances_with_restarts_give_what_the_rows_give():
    moments, rows, groups = three_instances()
    solved, known = moments.solve_least_squares(), reference(rows, groups)
    assert solved.coefficients == pytest.approx(known.params, rel=1e-9)
    assert solved.standard_errors == pytest.approx(known.bse, rel=1e-9)
    assert solved.covariance == pytest.approx(known.cov_params(), rel=1e-9)
    assert np.column_stack([solved.low, solved.high]) == pytest.approx(known.conf_int(), rel=1e-9)
    assert solved.r2 == pytest.approx(known.rsquared, rel=1e-9)
    assert solved.rmse == pytest.approx(np.sqrt(known.ssr / len(rows["y"])), rel=1e-9)
    assert solved.condition == pytest.approx(
        np.linalg.cond(rows["x"] / np.sqrt((rows["x"] ** 2).mean(axis=0))), rel=1e-6
    )
    assert (solved.n, solved.clusters) == (2100, len(set(groups)))
    assert solved.prior_share.tolist() == [0.0] * 5


@pytest.fixture(scope="module")
def million():
    return traffic(1_000_000, 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_window_of_200_after_a_million_requests(million, seed):
    rows = traffic(200, seed)[0]
    solved, known = (
        check_rows(rows, start=million).solve_least_squares(),
        reference(rows, clusters(200)),
    )
    assert solved.coefficients == pytest.approx(known.params, rel=1e-8)
    assert solved.standard_errors == pytest.approx(known.bse, rel=1e-8)


@pytest.mark.slow
def test_a_million_requests(million):
    each = terms(million, COSTS)
    clusters_ = np.add.reduceat(each, np.arange(0, len(each), 500))
    block = SumBlock(COSTS, clusters_, np.arange(len(clusters_), dtype=float))
    solved = ClusterMoments.from_block(block).combine_columns(COLUMNS).solve_least_squares()
    known = reference(million, np.arange(len(each)) // 500)
    assert solved.coefficients == pytest.approx(known.params, rel=1e-9)
    assert solved.standard_errors == pytest.approx(known.bse, rel=1e-9)


def test_wald_is_that_of_statsmodels():
    moments, rows, groups = three_instances()
    _, truth = traffic(1)
    before = truth * 1.02
    found = compute_wald_test(moments.subtract_prediction(before).solve_least_squares())
    known = reference(rows, groups).wald_test((np.eye(5), before), use_f=True, scalar=True)
    assert found.f == pytest.approx(float(known.statistic), rel=1e-6)
    assert found.p == pytest.approx(float(known.pvalue), rel=1e-6)
    assert (found.k, found.freedom) == (5, len(set(groups)) - 1)


def test_wald_needs_more_clusters_than_coefficients():
    assert compute_wald_test(check_rows(traffic(30)[0], every=6).solve_least_squares()) is None


def test_means_and_spreads():
    rows = traffic(400)[0]
    moments = check_rows(rows)
    assert moments.column_means == pytest.approx(rows["x"].mean(axis=0))
    assert moments.standard_deviations[1:] == pytest.approx(rows["x"].std(axis=0)[1:])
    assert moments.mean_y == pytest.approx(rows["y"].mean())
    b = np.array([1.0, 0.0, 0.02, 0.0, 0.0])
    assert moments.sum_squared_residuals(b) == pytest.approx(
        ((rows["y"] - rows["x"] @ b) ** 2).sum()
    )


def test_tolerance_is_what_other_columns_leave():
    rows = traffic(400)[0]
    x = rows["x"]
    z, others = x[:, 4], x[:, :4]
    left = z - others @ np.linalg.lstsq(others, z, rcond=None)[0]
    assert check_rows(rows).compute_tolerance(4) == pytest.approx((left @ left) / (z @ z), rel=1e-6)


def test_columns_that_cannot_be_told_apart_are_refused():
    rows = traffic(400, steady=7)[0]
    moments = check_rows(rows)
    assert moments.compute_tolerance(4) == 0.0
    with pytest.raises(SingularMoments, match="cannot be told apart"):
        moments.solve_least_squares()
    with pytest.raises(SingularMoments, match="cannot be told apart"):
        check_rows(traffic(400, steady=0)[0]).solve_least_squares()
    with pytest.raises(SingularMoments, match="5 requests in 1 blocks for 5 coefficients"):
        check_rows(traffic(5)[0]).solve_least_squares()


def test_a_prior_joins_as_rows_would():
    # Rows of one variance s²: a prior from 50 rows of their own with precision X'X/s² is them.
    rows = traffic(400)[0]
    moments = check_rows(rows)
    variance = moments.estimate_variance()
    more = traffic(50, 8)[0]
    mean = OLS(more["y"], more["x"]).fit().params
    prior = CoefficientPrior(mean, more["x"].T @ more["x"] / variance)
    solved = moments.solve_least_squares(prior)
    both = OLS(np.append(rows["y"], more["y"]), np.vstack([rows["x"], more["x"]])).fit()
    assert solved.coefficients == pytest.approx(both.params, rel=1e-9)
    assert (solved.prior_share > 0).all()
    assert (solved.prior_share < 1).all()


@pytest.mark.parametrize(("weight", "share"), [(1e-12, 0.0), (1e12, 1.0)])
def test_a_prior_of_no_weight_or_of_all(weight, share):
    moments = check_rows(traffic(400)[0])
    plain = moments.solve_least_squares()
    mean = 2.0 * plain.coefficients
    solved = moments.solve_least_squares(
        CoefficientPrior(mean, weight * np.linalg.inv(plain.covariance))
    )
    assert solved.prior_share == pytest.approx(share, abs=1e-6)
    assert solved.coefficients == pytest.approx(mean if share else plain.coefficients, rel=1e-6)


def test_a_prior_on_one_column_lets_the_others_be_told():
    rows, truth = traffic(400, steady=7)
    precision = np.zeros((5, 5))
    precision[4, 4] = 1e12
    solved = check_rows(rows).solve_least_squares(CoefficientPrior(truth, precision))
    rest = OLS(rows["y"] - truth[4] * rows["z"], rows["x"][:, :4]).fit()
    assert solved.coefficients[4] == pytest.approx(truth[4])
    assert solved.coefficients[:4] == pytest.approx(rest.params, rel=1e-6)
    assert solved.prior_share[4] == pytest.approx(1.0)
    assert solved.prior_share[[0, 1, 3]] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("every", "least", "most"), [(50, 0.9, 1.0), (7, 0.9, 1.0)])
def test_load_that_differs_between_scrapes(every, least, most):
    rows, _ = by_scrape(every)
    assert least < check_rows(rows, every=every).compute_between_share(4, per=2) <= most


def test_load_that_differs_within_scrapes_only():
    assert abs(check_rows(traffic(2000)[0], every=20).compute_between_share(4, per=2)) < 0.1


def test_weights_are_those_of_weighted_least_squares():
    rows = traffic(900)[0]
    rows["p"] = np.maximum(0.1, rows["x"] @ [0.1, 0.0, 0.025, 0.0, 0.0005])
    solved = check_rows(rows).solve_least_squares()
    y = np.clip(rows["y"], rows["p"] / 5, 5 * rows["p"])
    known = WLS(y, rows["x"], weights=rows["p"] ** -2.0).fit(
        cov_type="cluster", cov_kwds={"groups": clusters(900)}, use_t=True
    )
    assert solved.coefficients == pytest.approx(known.params, rel=1e-8)
    assert solved.standard_errors == pytest.approx(known.bse, rel=1e-7)
    assert solved.n == 900


def test_a_context_column_is_the_sum_of_two():
    rows = traffic(900)[0]
    context = read_blocks(COSTS, series(rows, COSTS))[ONE]
    solved = (
        ClusterMoments.from_block(context)
        .combine_columns(build_base_columns(RegressionForm.CONTEXT))
        .solve_least_squares()
    )
    i, o = rows["i"], rows["o"]
    x = np.column_stack([np.ones(900), i, o, o * (i + o / 2)])
    assert solved.coefficients == pytest.approx(OLS(rows["y"], x).fit().params, rel=1e-8)


def test_differences_between_blocks_are_not_drawn_to_zero_by_noise_in_a_column():
    rows, truth = by_scrape(50)
    noisy = np.maximum(0.0, rows["r"] + np.random.default_rng(1).normal(0.0, 8.0, 2000))
    rows["z"] = rows["o"] * noisy
    moments = check_rows(rows, every=50)
    assert moments.solve_least_squares().coefficients[4] < 0.75 * truth[4]
    grouped = moments.instrument_column(4, per=2).solve_least_squares(plain=moments)
    assert grouped.low[4] < truth[4] < grouped.high[4]
    assert grouped.coefficients[4] > 0.85 * truth[4]


def test_a_column_held_leaves_the_others_as_they_are_without_it():
    rows, truth = traffic(900)
    held = check_rows(rows).solve_with_fixed_coefficient(
        4, truth[4], np.zeros(len(check_rows(rows).xx))
    )
    rest = OLS(rows["y"] - truth[4] * rows["z"], rows["x"][:, :4]).fit(
        cov_type="cluster", cov_kwds={"groups": clusters(900)}, use_t=True
    )
    assert held.coefficients[:4] == pytest.approx(rest.params, rel=1e-8)
    assert held.standard_errors[:4] == pytest.approx(rest.bse, rel=1e-2)
    assert (held.coefficients[4], held.standard_errors[4]) == (truth[4], 0.0)


def test_a_held_column_that_is_not_known_exactly_moves_the_others_as_another_value_would():
    rows, truth = traffic(900)
    moments, error = check_rows(rows), 0.1 * truth[4]
    none = np.zeros(len(moments.xx))
    exact = moments.solve_with_fixed_coefficient(4, truth[4], none)
    vague = moments.solve_with_fixed_coefficient(4, truth[4], none, error**2)
    other = moments.solve_with_fixed_coefficient(4, truth[4] + error, none)
    moved = other.coefficients - exact.coefficients
    assert vague.standard_errors[4] == pytest.approx(error)
    assert vague.covariance - exact.covariance == pytest.approx(np.outer(moved, moved), rel=1e-6)
