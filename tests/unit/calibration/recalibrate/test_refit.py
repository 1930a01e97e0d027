"""Which form a window's sums carry, what is kept of the live profile, and how few are pulled."""

import msgspec
import numpy as np
import pytest

from calibration.recalibrate import prior as pull
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import PriorSettings
from calibration.recalibrate.refit import refit_cost
from calibration.recalibrate.solved import SingularMoments
from calibration.recalibrate.sums import read_blocks
from calibration.recalibrate.variants import build_base_columns
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS
from tests.unit.calibration.recalibrate.sums_of_rows import (
    ONE,
    by_scrape,
    clusters,
    series,
    traffic,
)

NOTHING = PriorSettings(prior_requests=0.0)


def live_profile(quantity="seconds", form=RegressionForm.LOAD, factor=1.0, size=2000):
    """Return a regression as if fitted to rows of the truth, with its covariance."""
    rows, _ = traffic(
        size, 77, quantity=quantity, steady=0 if form is not RegressionForm.LOAD else None
    )
    x = rows["x"][:, : form.term_count]
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ x.T @ rows["y"]
    variance = float(np.mean((rows["y"] - x @ b) ** 2))
    return CostRegression(
        form=form,
        coefficients=(factor * b).tolist(),
        covariance=(variance * factor**2 * inverse).tolist(),
        n=size,
        rmse=factor * variance**0.5,
    )


def found(rows, live, *, quantity="seconds", form=None, few=NOTHING, every=20, **more):
    """Refit rows of weight 1; a cluster for each scrape, which is a minute."""
    block = read_blocks(COSTS, series(rows, COSTS, quantity=quantity, every=every))[ONE]
    rules = RefitRules(
        form=form, prior_settings=few, block_seconds=60.0, **({"max_change": 1e9} | more)
    )
    return refit_cost(CostQuantity(quantity), block, live, rules)


ADDITIVE = CostRegression(form=RegressionForm.ADDITIVE, coefficients=[0.1, 0.001, 0.03])


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_load_is_fitted_where_load_varied(quantity):
    rows, truth = traffic(3000, quantity=quantity)
    one = found(rows, ADDITIVE, quantity=quantity)
    assert one.form is RegressionForm.LOAD
    assert one.coefficients[2] == pytest.approx(truth[2], rel=0.05)
    assert one.coefficients[4] == pytest.approx(truth[4], rel=0.05)
    assert one.rejected_forms == ()
    assert not one.kept_load


@pytest.mark.parametrize("steady", [0, 7])
def test_interaction_where_everything_ran_at_one_load(steady):
    rows, truth = traffic(3000, steady=steady)
    one = found(rows, ADDITIVE)
    assert one.form is RegressionForm.INTERACTION
    assert "load hardly varied" in one.rejected_forms[0]
    # What load added is in the cost per token out.
    assert one.coefficients[2] == pytest.approx(truth[2] + steady * truth[4], rel=0.02)


def test_additive_where_lengths_move_together():
    rows, truth = traffic(3000, steady=0)
    rng = np.random.default_rng(1)
    few = rng.integers(0, 2, 3000)
    i, o = 100.0 + 100.0 * few, 50.0 + 10.0 * few + rng.integers(0, 2, 3000)
    x = np.column_stack([np.ones(3000), i, o, i * o, 0 * i])
    rows = {**rows, "i": i, "o": o, "x": x, "y": x @ truth}
    one = found(rows, ADDITIVE, max_condition=400.0)
    assert one.form is RegressionForm.ADDITIVE
    assert any("interaction: condition number" in text for text in one.rejected_forms)


def test_nothing_can_be_told_of_one_length():
    rows, _ = traffic(500, steady=3)
    rows["i"] = np.full(500, 100.0)
    with pytest.raises(SingularMoments, match="additive: condition number inf, at most 300"):
        found(rows, ADDITIVE)


def test_the_form_that_was_asked_for():
    assert (
        found(traffic(3000)[0], ADDITIVE, form=RegressionForm.ADDITIVE).form
        is RegressionForm.ADDITIVE
    )
    with pytest.raises(SingularMoments, match="load: load hardly varied"):
        found(traffic(500, steady=3)[0], ADDITIVE, form=RegressionForm.LOAD)


@pytest.mark.parametrize("steady", [0, 7, None])
def test_a_known_load_is_kept_where_the_window_cannot_tell_it(steady):
    live = live_profile()
    rows, truth = traffic(3000, steady=steady)  # without `steady` load varies within scrapes only
    one = found(rows, live)
    assert one.form is RegressionForm.LOAD
    assert one.kept_load
    assert one.coefficients[4] == pytest.approx(live.coefficients[4], rel=0.05)
    assert one.coefficients[2] == pytest.approx(truth[2], rel=0.05)
    assert one.solved.prior_share[4] > 0.3


def test_a_known_load_is_fitted_anew_where_scrapes_differ_in_it():
    rows, truth = by_scrape(20)
    one = found(rows, live_profile(factor=1.5))
    assert not one.kept_load
    assert one.coefficients == pytest.approx(truth, rel=1e-6)


def test_a_kept_load_follows_the_level():
    live = live_profile()
    one = found(traffic(3000, factor=2.0, steady=7)[0], live)
    assert one.coefficients[4] == pytest.approx(2.0 * live.coefficients[4], rel=0.05)
    assert one.drift.relative_bias == pytest.approx(-0.5, abs=0.02)


def test_a_kept_load_is_known_no_better_than_the_live_profile_knew_it():
    live = live_profile()
    rows, _ = traffic(3000, steady=7)
    one = found(rows, live)
    error = one.drift.observed / one.drift.predicted * np.array(live.covariance)[4, 4] ** 0.5
    level_only = found(rows, msgspec.structs.replace(live, covariance=None)).solved
    assert one.solved.standard_errors[4] ** 2 == pytest.approx(
        error**2 + level_only.standard_errors[4] ** 2, rel=1e-6
    )


def test_a_term_of_the_wrong_sign_is_left_out():
    rows, _ = traffic(3000, noise=0.0)
    x = rows["x"]
    rows["y"] = x @ [0.05, 0.001, 0.02, -4e-6, 0.0006]
    one = found(rows, ADDITIVE)
    assert one.form is RegressionForm.LOAD
    assert one.used == (0, 1, 2, 4)
    assert one.coefficients[3] == 0.0
    assert one.wrong_sign is None
    assert "load: a token in costs -" in one.rejected_forms[0]
    assert one.covariance[3] == [0.0] * 5


def test_a_prompt_that_could_cost_nothing_does():
    rows, _ = traffic(400, noise=0.2, steady=0)
    x = rows["x"]
    rows["y"] = rows["y"] - 0.0004 * x[:, 1] - 1e-6 * x[:, 3]
    one = found(rows, ADDITIVE, form=RegressionForm.ADDITIVE)
    assert one.wrong_sign is None
    assert one.used in {(0, 1, 2), (0, 2)}


def test_a_prompt_that_clearly_costs_less_than_nothing_is_a_wrong_sign():
    rows, _ = traffic(3000, steady=0)
    rows["y"] = 5.0 + rows["y"] - 0.002 * rows["i"]
    one = found(rows, ADDITIVE)
    assert one.form is RegressionForm.ADDITIVE
    assert one.used == (0, 1, 2)
    assert "a token in costs -" in one.wrong_sign


def test_drift_is_mean_predicted_over_mean_observed():
    rows, truth = traffic(3000)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=(1.3 * truth).tolist())
    drift = found(rows, live).drift
    assert drift.predicted == pytest.approx((rows["x"] @ truth).mean() * 1.3)
    assert drift.observed == pytest.approx(rows["y"].mean())
    assert drift.relative_bias == pytest.approx(0.3, abs=0.02)
    predicted = 1.3 * rows["x"] @ truth
    share = np.sqrt(np.mean((rows["y"] - predicted) ** 2) / np.mean(predicted**2))
    assert drift.rmse == pytest.approx(share, rel=1e-6)
    assert drift.chow.p < 1e-12


def test_no_drift_where_the_live_profile_holds():
    misses = 0
    for seed in range(40):
        rows, truth = traffic(1000, seed)
        live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
        misses += found(rows, live).drift.chow.p < 0.05
    assert misses <= 8  # 2 expected; robust errors of skewed lengths reject somewhat too often


def test_few_requests_are_pulled_and_many_are_not():
    live, few = live_profile(), PriorSettings(prior_requests=100.0, enough_requests=2000)
    shares = []
    for size in (120, 600, 1900, 2000):
        rows = {key: value[:size] for key, value in by_scrape(5)[0].items()}
        rows["y"] = rows["y"] * (1 + 0.05 * np.random.default_rng(2).standard_normal(size))
        pulled, plain = (found(rows, live, few=one, every=5) for one in (few, NOTHING))
        fitted = [place for place, at in enumerate(plain.used) if at != pull.LOAD_AT]  # b4 is kept
        assert not plain.solved.prior_share[fitted].any()
        assert pulled.used == plain.used
        shares.append(pulled.solved.prior_share[fitted].max())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.1
    assert shares[-1] == 0.0
    assert pulled.coefficients == plain.coefficients


def test_a_pull_makes_few_requests_predict_better():
    gained = []
    fresh, _ = traffic(2000, 99, noise=0.0)
    for seed in range(20):
        rows = traffic(100, seed, noise=0.3)[0]
        fits = [found(rows, live_profile(), few=few, every=5) for few in (PriorSettings(), NOTHING)]
        errors = [np.median(np.abs(fresh["x"] @ padded(fit) / fresh["y"] - 1)) for fit in fits]
        gained.append(errors[0] < errors[1])
    assert sum(gained) >= 14


def padded(one):
    return np.append(one.coefficients, np.zeros(5 - len(one.coefficients)))


def test_a_pull_knows_that_the_level_has_changed():
    rows, truth = traffic(150, 3, factor=2.0)
    one = found(rows, live_profile(), few=PriorSettings(), every=5)
    assert one.predict_cost(one.mean)[0] == pytest.approx(rows["y"].mean(), rel=0.05)
    assert one.coefficients[2] == pytest.approx(truth[2], rel=0.2)


@pytest.mark.parametrize("form", [RegressionForm.ADDITIVE, RegressionForm.INTERACTION])
def test_a_live_profile_that_does_not_know_load_does_not_pull_one_that_does(form):
    one = found(traffic(150)[0], live_profile(form=form), few=PriorSettings(), every=5)
    assert one.form is RegressionForm.LOAD
    assert one.solved.prior_share.tolist() == [0.0] * len(one.used)


def test_a_live_profile_without_errors_is_taken_as_known_to_half_its_size():
    rows, truth = traffic(150, steady=0)
    live = CostRegression(form=RegressionForm.INTERACTION, coefficients=truth[:4].tolist())
    one = found(rows, live, few=PriorSettings(), every=5)
    assert 0.0 < one.solved.prior_share.max() < 1.0


def test_the_weight_of_a_live_profile_falls_with_every_request():
    few = PriorSettings(prior_requests=100.0, enough_requests=2000)
    assert [few.compute_weight(n) for n in (0, 500, 1000, 2000, 5000)] == [100, 75, 50, 0, 0]


def test_an_error_of_zero_is_no_knowledge():
    live = live_profile()
    covariance = np.array(live.covariance)
    covariance[3] = covariance[:, 3] = 0.0
    again = CostRegression(
        form=live.form, coefficients=live.coefficients, covariance=covariance.tolist(), n=live.n
    )
    one = found(traffic(150)[0], again, few=PriorSettings(), every=5)
    assert np.isfinite(one.solved.covariance).all()


def test_the_seen_range_is_within_the_true_one():
    rows, _ = traffic(3000)
    seen = found(rows, ADDITIVE).observed_range
    for ends, name in ((seen.tokens_in, "i"), (seen.tokens_out, "o"), (seen.load, "r")):
        assert rows[name].min() <= ends[0] < rows[name].mean() < ends[1] <= rows[name].max()


def test_the_seen_load_of_joules_is_in_requests_running():
    rows, _ = traffic(3000, quantity="joules")
    low, high = found(rows, ADDITIVE, quantity="joules").observed_range.compute_running_range(
        CostQuantity.JOULES
    )
    assert 0.0 <= low < high <= 31.0


def test_a_prediction_and_its_interval():
    rows, _ = traffic(500)
    one = found(rows, ADDITIVE, few=NOTHING)
    value, half = one.predict_cost(one.mean)
    assert value == pytest.approx(rows["y"].mean(), rel=1e-9)
    columns = one.mean @ build_base_columns(one.form)
    error = (columns @ one.solved.covariance @ columns) ** 0.5
    assert half / error == pytest.approx(
        2.179, abs=0.001
    )  # t with 12 degrees of freedom: 25 blocks
    assert len(set(clusters(500, 20))) == 25


def test_every_place_of_the_load_is_the_same():
    assert RegressionForm.LOAD.term_count - 1 == pull.LOAD_AT


def test_context_is_taken_where_it_fits_better():
    rows, _ = traffic(3000, steady=0)
    i, o = rows["i"], rows["o"]
    rows["y"] = 0.05 + 0.0004 * i + 0.01 * o + 4e-5 * o * (i + o / 2)
    one = found(rows, ADDITIVE)
    assert one.form is RegressionForm.CONTEXT
    assert one.coefficients == pytest.approx([0.05, 0.0004, 0.01, 4e-5], rel=1e-5)
    assert "interaction: context has the lower loss" in one.rejected_forms[-1]


def test_a_noisy_reading_of_the_load_does_not_move_its_coefficient():
    rows, truth = by_scrape(20)
    live = live_profile()
    noisy = np.maximum(0.0, rows["r"] + np.random.default_rng(1).normal(0.0, 8.0, 2000))
    rows = {**rows, "z": rows["o"] * noisy, "r": noisy}
    one = found(rows, live)
    assert one.coefficients[4] == pytest.approx(truth[4], rel=0.12)
    assert one.attenuation > 0.02


def test_a_prompt_that_was_cached_costs_nothing_but_its_reading():
    rows, truth = traffic(3000, steady=0, noise=0.0)
    cached = np.random.default_rng(2).random(3000) < 0.7
    rows["u"] = np.where(cached, np.floor(rows["i"] / 10), rows["i"])
    rows["y"] = rows["x"] @ truth - truth[1] * (rows["i"] - rows["u"])
    one = found(rows, ADDITIVE, form=RegressionForm.INTERACTION)
    assert one.coefficients == pytest.approx(truth[:4], rel=1e-6)
