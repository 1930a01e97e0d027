"""What fools a refit, and what must not stop it: plain requests of a known truth, 20 windows each.

A window is six hours of 3,000 requests (unless said), scraped every 15 s, with 30% noise.
"""

import math
from collections import Counter

import numpy as np
import pytest

from calibration.recalibrate import gates
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import GateLimits
from calibration.recalibrate.refit import refit_cost
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, TERMS, WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums
from gateway.telemetry.sums_row import UNITS, SumsRow
from tests.unit.calibration.recalibrate.requests import (
    SCRAPE_SECONDS,
    draw_requests,
    evaluate,
    live_profile,
    make_block,
    make_blocks,
    make_metered,
    shape,
    sum_rows,
    take_rows,
)

RUNS = 20
SIZE = 3000
LIMITS = GateLimits()


def run(rows, live, quantity, metered=None):
    """Refit and ask the gates; returns the refit (or None) and the gates that refused."""
    costs, counts = make_blocks(
        rows if metered is None else take_rows(rows, metered), live, quantity
    )
    refused = [*gates.check_block(costs, LIMITS), *gates.check_rows(counts, LIMITS)]
    if metered is not None:
        refused += gates.check_metered(make_metered(rows, live, metered), LIMITS)
    if refused:
        return None, refused
    found = refit_cost(quantity, costs, live, RefitRules(), counts)
    return found, list(gates.check_refit(found, LIMITS))


def find_error(found, quantity):
    """The median error of the mean cost of fresh requests."""
    fresh = draw_requests(np.random.default_rng(999), 2000, quantity)
    predicted = evaluate(found.form, quantity, found.coefficients, fresh)
    return float(np.median(np.abs(predicted / fresh["truth"] - 1.0)))


def lengthen_some(rng, rows, _quantity):
    rows["y"] = np.where(rng.random(len(rows["y"])) < 0.05, 5.0, 1.0) * rows["y"]


def lengthen_few(rng, rows, _quantity):
    rows["y"] = np.where(rng.random(len(rows["y"])) < 0.003, 100.0, 1.0) * rows["y"]


def send_novels(rng, rows, quantity):
    noise = rows["y"] / rows["truth"]
    chosen = rng.random(len(noise)) < 0.01
    rows["i"][chosen] = rows["u"][chosen] = 100_000.0
    rows["truth"] = evaluate(*shape(quantity), rows)
    rows["y"] = rows["truth"] * noise


def send_pings(rng, rows, quantity):
    """20 requests of one token beside each real one."""
    for name in rows:
        rows[name] = np.repeat(rows[name], 21)
    size = len(rows["o"])
    rows["o"] = np.where(np.arange(size) % 21, 1.0, rows["o"])
    rows["truth"] = evaluate(*shape(quantity), rows)
    rows["y"] = rows["truth"] * rng.lognormal(-0.045, 0.3, size)


def misread_load(rng, rows, _quantity):
    """What was running at one moment, for the mean over the request."""
    rows["r"] = rng.poisson(rows["r"]).astype(float)


def misread_load_badly(rng, rows, _quantity):
    rows["r"] = np.maximum(0.0, rows["r"] + rng.normal(0.0, 6.0, len(rows["r"])))


def cache_prompts(rng, rows, quantity):
    """70% of the prompts were read before, all but a tenth of each."""
    noise = rows["y"] / rows["truth"]
    rows["u"] = np.where(rng.random(len(noise)) < 0.7, np.floor(rows["i"] / 10), rows["i"])
    rows["truth"] = evaluate(*shape(quantity), rows)
    rows["y"] = rows["truth"] * noise


def leave_alone(_rng, _rows, _quantity):
    """Clean traffic."""


@pytest.mark.parametrize("quantity", list(CostQuantity))
@pytest.mark.parametrize(
    "spoil",
    [
        leave_alone, lengthen_some, lengthen_few, send_novels, send_pings, misread_load,
        misread_load_badly, cache_prompts,
    ],
)  # fmt: skip
def test_a_true_profile_is_not_fooled_out_of_office(spoil, quantity):
    adopted = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        rows = draw_requests(rng, SIZE, quantity)
        spoil(rng, rows, quantity)
        found, refused = run(rows, live_profile(quantity), quantity)
        if not refused:
            adopted += 1
            assert find_error(found, quantity) <= 0.05
    assert adopted <= 1


@pytest.mark.parametrize("lost", [0.02, 0.05, 0.1, 0.2])
def test_dear_requests_without_joules_do_not_make_the_model_cheaper(lost):
    adopted, gone = 0, Counter()
    for seed in range(RUNS):
        rows = draw_requests(np.random.default_rng(seed), SIZE, CostQuantity.JOULES)
        metered = rows["y"] < np.quantile(rows["y"], 1.0 - lost)
        found, refused = run(rows, live_profile(CostQuantity.JOULES), CostQuantity.JOULES, metered)
        gone.update(one.gate for one in refused)
        if not refused:
            adopted += 1
            assert find_error(found, CostQuantity.JOULES) <= 0.05
    assert adopted <= 1
    if lost >= 0.1:
        assert gone["missing"] == RUNS


def test_a_meter_that_was_away_for_half_the_window_is_no_choice():
    rows = draw_requests(np.random.default_rng(0), SIZE, CostQuantity.JOULES)
    live = live_profile(CostQuantity.JOULES, 0.7)
    found, refused = run(rows, live, CostQuantity.JOULES, rows["at"] < rows["at"].mean())
    assert refused == []
    assert find_error(found, CostQuantity.JOULES) <= 0.03


@pytest.mark.parametrize("factor", [0.7, 1.3])
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_a_profile_that_is_30_percent_off_is_mended_at_once(quantity, factor):
    adopted = 0
    for seed in range(RUNS):
        rows = draw_requests(np.random.default_rng(seed), SIZE, quantity)
        found, refused = run(rows, live_profile(quantity, factor), quantity)
        if not refused:
            adopted += 1
            assert find_error(found, quantity) <= 0.03
    assert adopted >= RUNS - 1


@pytest.mark.parametrize("factor", [0.25, 4.0])
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_a_profile_that_is_4_times_off_is_mended_in_three_rounds(quantity, factor):
    for seed in range(RUNS):
        live = live_profile(quantity, factor)
        for turn in range(3):
            rows = draw_requests(np.random.default_rng([seed, turn]), SIZE, quantity)
            found, refused = run(rows, live, quantity)
            if not refused:
                live = CostRegression(
                    form=found.form, coefficients=found.coefficients,
                    covariance=found.covariance, n=found.solved.n,
                )  # fmt: skip
        fresh = draw_requests(np.random.default_rng(999), 2000, quantity)
        predicted = evaluate(live.form, quantity, live.coefficients, fresh)
        assert np.median(np.abs(predicted / fresh["truth"] - 1.0)) <= 0.05


def test_a_profile_that_is_20_times_off_is_no_matter_of_a_refit():
    rows = draw_requests(np.random.default_rng(0), SIZE)
    _, refused = run(rows, live_profile(factor=0.05), CostQuantity.SECONDS)
    assert "change" in {one.gate for one in refused}


@pytest.mark.slow
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_intervals_hold_where_neighbouring_scrapes_share_a_servers_state(quantity):
    """Each scrape's costs are off by a factor that follows the last one's at 0.9."""
    covered = Counter()
    runs = 200
    form, coefficients = shape(quantity)[0], shape(quantity)[2]
    rules = RefitRules(form=form)
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        rows = draw_requests(rng, SIZE, quantity, noise=0.1)
        state = np.zeros(int(rows["at"].max() // SCRAPE_SECONDS) + 1)
        steps = rng.normal(0.0, 0.1 * math.sqrt(1 - 0.9**2), len(state))
        for at in range(1, len(state)):
            state[at] = 0.9 * state[at - 1] + steps[at]
        rows["y"] = rows["y"] * (1.0 + state[(rows["at"] // SCRAPE_SECONDS).astype(int)])
        costs, counts = make_blocks(rows, live_profile(quantity, 1.2), quantity)
        found = refit_cost(quantity, costs, live_profile(quantity, 1.2), rules, counts)
        value, half = found.predict_cost(found.mean)
        mean = float(
            coefficients[0] + coefficients[1] * found.mean[1] + coefficients[2] * found.mean[2]
            + coefficients[3] * (found.mean[3] + found.mean[4] / 2)
            + coefficients[4] * found.mean[5]
        )  # fmt: skip
        covered["mean"] += abs(value - mean) <= half
        for place, at in enumerate(found.used):
            low, high = found.solved.low[place], found.solved.high[place]
            covered[f"b{at}"] += low <= coefficients[at] <= high
    assert covered["mean"] >= 0.88 * runs
    assert all(covered[f"b{at}"] >= 0.88 * runs for at in range(5))


@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_these_sums_are_those_that_a_gateway_adds(quantity):
    rng = np.random.default_rng(3)
    rows = draw_requests(rng, 200, quantity)
    cache_prompts(rng, rows, quantity)
    lengthen_some(rng, rows, quantity)
    live = live_profile(quantity, 0.8)
    cost = live.to_cost_function(quantity)
    sums = OlsSums([("m", "m")])
    for k in range(200):
        i, u, o = (int(rows[name][k]) for name in ("i", "u", "o"))
        r = float(rows["r"][k])
        micro = round(rows["y"][k] * 1e6)
        expected = WeighedPrediction.of(cost, i, o, r, i - u)
        sums.add_row(
            "m", "m", SumsRow(i, o, i - u, r, micro, micro, None, True, expected, expected, r)
        )
    part = list(CostQuantity).index(quantity)
    kept = sums.snapshot_sums()["m", "m"]
    shown = [value / unit for value, unit in zip(kept[part], UNITS[part], strict=True)]
    costs, counts = sum_rows(rows, live, quantity)
    for term, one, other in zip(TERMS[COSTS], shown, costs.sum(axis=0), strict=True):
        size = abs(other) if not term.endswith("t") else np.abs(costs).sum(axis=0).max() * 1e-6
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5 * size), term
    assert kept[2 + part] == counts.sum(axis=0).tolist()
    assert make_block(COSTS, rows, costs).sum_term("n") == 200
    assert live.form is RegressionForm.LOAD_CONTEXT
