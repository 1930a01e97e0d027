"""Each gate: what passes, what does not, and that the refusal names number and bound."""

import numpy as np
import pytest

from calibration.recalibrate import gates
from calibration.recalibrate.gates import GateLimits
from calibration.recalibrate.prior import PriorSettings
from calibration.recalibrate.refit import refit_cost
from calibration.recalibrate.sums import LOAD, PROMPT, SumBlock, SumFault, read_blocks
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from tests.unit.calibration.recalibrate.sums_of_rows import ONE, series, traffic

LIMITS = GateLimits()


def block(rows, every=7):
    return read_blocks(LOAD, series(rows, LOAD, every=every))[ONE]


def fitted(rows, live=None, **how):
    if live is None:
        live = CostRegression(form=RegressionForm.LOAD, coefficients=traffic(1)[1].tolist())
    few, condition = PriorSettings(prior_requests=0.0), how.pop("max_condition", 300.0)
    return refit_cost(
        CostQuantity.SECONDS, block(rows, **how), live, form=None, few=few, max_condition=condition
    )


def only(refusals):
    (one,) = refusals
    return one


def test_good_sums_pass():
    assert list(gates.check_block(block(traffic(2000)[0]), LIMITS)) == []
    assert list(gates.check_refit(fitted(traffic(2000)[0]), LIMITS)) == []


def test_faults_come_before_all_else():
    bad = SumBlock(
        LOAD, np.zeros((0, 20)), faults=(SumFault("stuck", "instance=a", "term i stood"),)
    )
    assert str(only(gates.check_block(bad, LIMITS))) == "stuck: term i stood (instance=a)"


def test_few_requests():
    one = only(gates.check_block(block(traffic(50)[0]), LIMITS))
    assert (one.gate, one.number, one.bound) == ("requests", 50, 100)
    assert str(one).startswith("requests: 50, at least 100 needed (--min-requests")
    assert not list(gates.check_block(block(traffic(100)[0]), LIMITS))


def test_few_scrapes():
    one = only(gates.check_block(block(traffic(2000)[0], every=250), LIMITS))
    assert (one.gate, one.number, one.bound) == ("scrapes", 8, 10)


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
        one.gate: one for one in gates.check_refit(fitted(rows), GateLimits(max_change=100.0))
    }
    assert widths["interval"].number > widths["interval"].bound == 0.25


@pytest.mark.parametrize("factor", [0.2, 0.34, 1.0, 2.9, 3.2, 40.0])
def test_change(factor):
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    refusals = list(gates.check_refit(fitted(traffic(2000, factor=factor)[0], live), LIMITS))
    if 1 / 3 < factor < 3:
        assert refusals == []
    else:
        one = only(refusals)
        assert one.gate == "change"
        assert one.number == pytest.approx(factor, rel=0.05)
        assert one.bound == 3.0
        assert "0.333 to 3 is allowed" in str(one)


def test_gain():
    _, truth = traffic(1)
    live = CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
    one = only(gates.check_refit(fitted(traffic(2000)[0], live), GateLimits(min_gain=0.1)))
    assert one.gate == "gain"
    assert 0.0 <= one.number < one.bound == 0.1
    worse = CostRegression(form=RegressionForm.LOAD, coefficients=(1.5 * truth).tolist())
    assert not list(gates.check_refit(fitted(traffic(2000)[0], worse), GateLimits(min_gain=0.1)))


def test_a_live_profile_that_predicts_nothing_cannot_be_compared():
    assert only(gates.check_change(1.0, -2.0, LIMITS)).number == float("inf")


def test_an_interval_about_nothing_is_too_wide():
    assert only(gates.check_interval(0.0, 1.0, LIMITS)).number == float("inf")
    assert not list(gates.check_interval(1.0, 0.2, LIMITS))


def test_a_scrape_in_which_a_server_stood_still():
    rows = traffic(2000)[0]
    rows["y"] = np.array(rows["y"], dtype=float)
    mean = rows["y"].mean()
    assert fitted(rows).influence < 0.01
    rows["y"][700:707] += 100.0 * mean  # one scrape's worth of answers, each 100 times as long
    one = next(r for r in gates.check_refit(fitted(rows), LIMITS) if r.gate == "influence")
    # 7 answers of 2,000 hold a quarter of all the time there was.
    assert one.number == pytest.approx(700 / 2700, rel=0.2)
    assert "--max-influence" in str(one)
    assert not [
        r
        for r in gates.check_refit(fitted(rows), GateLimits(max_influence=0.5))
        if r.gate == "influence"
    ]
