"""Each gate: what passes, what does not, and that the refusal names number and bound."""

import numpy as np
import pytest

from calibration.recalibrate import gates
from calibration.recalibrate.faults import SumFault
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import GateLimits, PriorSettings
from calibration.recalibrate.refit import refit_cost
from calibration.recalibrate.sums import SumBlock, read_blocks
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, METERED, PROMPT, ROWS
from tests.unit.calibration.recalibrate.sums_of_rows import ONE, series, traffic

LIMITS = GateLimits()
STUCK = SumFault("stuck", "instance=a", "term i stood")


def block(rows, every=7):
    return read_blocks(COSTS, series(rows, COSTS, every=every))[ONE]


def fitted(rows, live=None, **how):
    """Refit rows that were predicted by the live profile."""
    if live is None:
        live = CostRegression(form=RegressionForm.LOAD, coefficients=(1.3 * traffic(1)[1]).tolist())
    b = np.append(live.coefficients, np.zeros(5 - len(live.coefficients)))
    rows = {**rows, "p": np.maximum(1e-3, rows["x"] @ b)}
    few, condition = PriorSettings(prior_requests=0.0), how.pop("max_condition", 300.0)
    rules = RefitRules(prior_settings=few, max_condition=condition)
    low, high = (rows["y"] < rows["p"] / 5).sum(), (rows["y"] > 5 * rows["p"]).sum()
    counts = SumBlock(ROWS, np.array([[float(len(rows["y"])), 0.0, low, high]]), np.zeros(1))
    return refit_cost(CostQuantity.SECONDS, block(rows, **how), live, rules, counts)


def only(refusals):
    (one,) = refusals
    return one


def test_good_sums_pass():
    assert list(gates.check_block(block(traffic(2000)[0]), LIMITS)) == []
    assert list(gates.check_refit(fitted(traffic(2000)[0]), LIMITS)) == []


def test_faults_come_before_all_else():
    bad = SumBlock(
        COSTS,
        np.zeros((0, 40)),
        np.zeros(0),
        faults=(STUCK,),
    )
    assert str(only(gates.check_block(bad, LIMITS))) == "stuck: term i stood (instance=a)"


def test_few_requests():
    one = only(gates.check_block(block(traffic(50)[0]), LIMITS))
    assert (one.gate, one.number, one.bound) == ("requests", 50, 100)
    assert str(one).startswith("requests: 50, at least 100 needed (--min-requests")
    assert not list(gates.check_block(block(traffic(100)[0]), LIMITS))


def test_few_blocks_of_time():
    found = fitted(traffic(2000)[0], every=100)
    blocks = [one for one in gates.check_refit(found, LIMITS) if one.gate == "blocks"]
    assert only(blocks).number == found.holdout.blocks < only(blocks).bound == 8
    assert f"{found.holdout.blocks} of 5 minutes with requests" in str(only(blocks))


@pytest.mark.parametrize(("term", "what"), [("i", "prompts"), ("o", "answers")])
def test_one_constant_length(term, what):
    rows = traffic(2000)[0]
    rows[term] = np.full(2000, 128.0)
    one = only(gates.check_block(block(rows), LIMITS))
    assert one.gate == "lengths"
    assert one.number == pytest.approx(0.0, abs=1e-6)
    assert one.bound == 0.05
    assert f"{what} are all of about 128 tokens" in str(one)


def test_one_constant_prompt_tells_a_token_ratio_all_the_same():
    rows = traffic(2000)[0]
    rows["i"], rows["e"] = np.full(2000, 128.0), np.full(2000, 116.0)
    found = read_blocks(PROMPT, series(rows, PROMPT))[ONE]
    assert list(gates.check_block(found, LIMITS)) == []


def test_condition():
    live = CostRegression(form=RegressionForm.ADDITIVE, coefficients=[0.1, 0.0005, 0.03])
    found = fitted(traffic(2000)[0], live)
    one = only(gates.check_refit(found, GateLimits(max_condition=2.0)))
    assert one.gate == "condition"
    assert one.number > one.bound == 2.0


def test_signs():
    rows, _ = traffic(2000, steady=0)
    rows["y"] = 5.0 + rows["y"] - 0.002 * rows["i"]
    live = CostRegression(form=RegressionForm.ADDITIVE, coefficients=[5.0, 0.0, 0.02])
    assert only(gates.check_refit(fitted(rows, live), LIMITS)).gate == "signs"


def test_wide_intervals():
    rows, _ = traffic(120, noise=3.0)
    rows["y"] = np.abs(rows["y"])
    widths = {
        one.gate: one
        for one in gates.check_refit(fitted(rows, every=5), GateLimits(max_interval=0.1))
    }
    assert widths["interval"].number > widths["interval"].bound == 0.1


@pytest.mark.parametrize("factor", [0.34, 0.5, 2.0, 2.9])
def test_a_change_within_the_bounds_is_taken_whole(factor):
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    found = fitted(traffic(2000, factor=factor)[0], live)
    assert list(gates.check_refit(found, LIMITS)) == []
    assert found.step == 1.0
    assert found.change == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize(("factor", "taken"), [(0.22, 1 / 3), (4.0, 3.0)])
def test_a_larger_change_is_taken_in_steps(factor, taken):
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    found = fitted(traffic(2000, factor=factor)[0], live)
    assert list(gates.check_refit(found, LIMITS)) == []
    assert found.change * found.step == pytest.approx(taken)
    assert found.predict_cost(found.mean)[0] == pytest.approx(taken * found.drift.predicted)


@pytest.mark.parametrize("factor", [0.1, 40.0])
def test_a_change_beyond_what_rows_count_for_is_refused(factor):
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    refusals = list(gates.check_refit(fitted(traffic(2000, factor=factor)[0], live), LIMITS))
    one = only([one for one in refusals if one.gate == "change"])
    assert one.number > one.bound == 0.5


def test_gain():
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    one = only(gates.check_refit(fitted(traffic(2000)[0], live), LIMITS))
    assert one.gate == "gain"
    assert "may be chance: the live profile holds" in str(one)
    off = CostRegression(form=RegressionForm.LOAD, coefficients=(1.02 * truth).tolist())
    one = only(gates.check_refit(fitted(traffic(2000, noise=0.01)[0], off), LIMITS))
    assert (one.gate, one.bound) == ("gain", 0.03)
    assert one.number == pytest.approx(0.02, rel=0.1)
    assert not list(
        gates.check_refit(fitted(traffic(2000, noise=0.01)[0], off), GateLimits(min_gain=0.01))
    )


def test_a_few_odd_requests_are_no_reason():
    rows, truth = traffic(3000)
    odd = np.random.default_rng(4).random(3000) < 0.05
    rows["y"] = np.where(odd, 5.0, 1.0) * rows["y"]
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    found = fitted(rows, live)
    one = only(gates.check_refit(found, LIMITS))
    assert (one.gate, one.bound) == ("ordinary", 0.3)
    assert found.holdout.is_significant
    assert one.number < 0.2


def metered(**rows):
    """Rows of 100 J and 1 s each but for those said: (count, measured, joules, seconds)."""
    total = np.zeros(6)
    for count, measured, joules, seconds in rows.values():
        one = count * np.array([1.0, joules, seconds])
        total += np.concatenate([one, one * measured])
    return SumBlock(METERED, total[None], np.zeros(1))


def test_joules_missing_of_the_dear_ones():
    found = metered(cheap=(900, True, 100.0, 1.0), dear=(100, False, 300.0, 3.0))
    one = only(gates.check_metered(found, LIMITS))
    assert (one.gate, one.bound) == ("missing", 0.1)
    assert one.number == pytest.approx(0.25)
    assert "3 times what the measured ones did" in str(one)
    # Dear by their time alone, as the predictions see it.
    slow = metered(some=(900, True, 100.0, 1.0), slow=(200, False, 100.0, 2.0))
    assert only(gates.check_metered(slow, LIMITS)).gate == "missing"


@pytest.mark.parametrize(
    "rows",
    [
        {"all": (100, True, 100.0, 1.0)},
        {"none": (100, False, 100.0, 1.0)},
        {"first": (500, True, 100.0, 1.0), "meter_away": (500, False, 105.0, 1.1)},
        {"many": (1000, True, 100.0, 1.0), "few_dear": (10, False, 300.0, 3.0)},
    ],
)
def test_joules_missing_without_choice_or_hardly_any(rows):
    assert list(gates.check_metered(metered(**rows), LIMITS)) == []


def test_rows_that_had_no_weight():
    found = SumBlock(ROWS, np.array([[100.0, 20.0, 0.0, 0.0]]), np.zeros(1))
    assert only(gates.check_rows(found, LIMITS)).gate == "floored"
    assert list(gates.check_rows(found, GateLimits(max_missing=0.3))) == []


def test_a_live_profile_that_predicts_nothing_cannot_be_compared():
    assert only(gates.check_change(1.0, -2.0, LIMITS)).number == float("inf")


def test_an_interval_about_nothing_is_too_wide():
    assert only(gates.check_interval(0.0, 1.0, LIMITS)).number == float("inf")
    assert not list(gates.check_interval(1.0, 0.2, LIMITS))


def test_a_scrape_in_which_a_server_stood_still():
    rows = traffic(2000)[0]
    rows["y"] = np.array(rows["y"], dtype=float)
    assert fitted(rows).influence < 0.02
    rows["y"][700:800] *= 100.0  # one scrape's worth of answers; each counts five times
    found = fitted(rows, every=100)
    one = next(r for r in gates.check_refit(found, LIMITS) if r.gate == "influence")
    assert one.number == found.influence > one.bound == 0.1
    assert "--max-influence" in str(one)
    assert not [
        r for r in gates.check_refit(found, GateLimits(max_influence=0.5)) if r.gate == "influence"
    ]
    # A few of them cannot: 7 answers are held to five times what was predicted.
    few = traffic(2000)[0]
    few["y"][700:707] *= 100.0
    assert fitted(few).influence < 0.02
