"""Refits of what the ledger charged, held against the physical truth, on the virtual clock.

The other drills draw their requests from the very regression that is fitted. Here requests run in
the step engine, the ledger divides its joules, the gateway's own sums take the rows, and what comes
out is asked for the true joules and seconds of requests that nobody has fitted.
"""

from dataclasses import replace
from functools import cache
from random import Random
from statistics import median

import numpy as np
import pytest

from calibration.recalibrate import gates
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import GateLimits
from calibration.recalibrate.refit import refit_cost
from calibration.recalibrate.sums import SumBlock
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, ROWS, TERMS, WeighedPrediction
from gateway.telemetry.sums_row import UNITS, SumsRow, add_row, make_zero_sums
from tests.lab import H100, Lab, LabBackend, poisson
from tests.lab.costs import fitted_profile
from tests.lab.scenarios import LENGTHS

BLOCK_SECONDS = 300.0
BLOCKS = 12
RATES = (0.2, 2.5)
SCRAPE_SECONDS = 15.0
MEASURED = {"exclusive", "apportioned"}
LIMITS = GateLimits()

pytestmark = pytest.mark.slow


def profile(quantity, factor=1.0):
    """What profiling the model alone gave, or that times a factor."""
    if quantity is CostQuantity.JOULES:
        found = fitted_profile(H100)
        parts = (found.prompt_joules, found.own_joules, found.context_joules, found.shared_joules)
    else:
        step = H100.seconds
        own = step.fixed + step.per_sequence
        parts = (step.per_prompt_token, own, step.per_context_token, step.per_sequence)
    scaled = [0.0, *(factor * part for part in parts)]
    return CostRegression(form=RegressionForm.LOAD_CONTEXT, coefficients=scaled)


@cache
def serve(seed):
    """An hour of streams whose rate changes every five minutes."""
    rng, arrivals = Random(seed), []
    for block in range(BLOCKS):
        drawn = poisson(
            rate=rng.uniform(*RATES), seconds=BLOCK_SECONDS, seed=100 * seed + block, **LENGTHS
        )
        begin = block * BLOCK_SECONDS
        arrivals += [replace(one, at_seconds=begin + one.at_seconds) for one in drawn]
    return Lab([LabBackend("one", H100, cost=fitted_profile(H100))], seed=seed).run(arrivals)


def make_blocks(run, live, quantity):
    """The sums that a gateway shows of a run, by scrape: costs and rows."""
    costs = {each: live if each is quantity else profile(each) for each in CostQuantity}
    functions = {each: one.to_cost_function(each) for each, one in costs.items()}
    shown = {}
    for one in run.measured():
        lengths = (one.arrival.tokens_in, one.tokens_out, one.others, 0)
        row = SumsRow(
            one.arrival.tokens_in, one.tokens_out, 0, one.others,
            round(one.truth.seconds * 1e6),
            one.charged_microjoules if one.method in MEASURED else None, None, False,
            WeighedPrediction.of(functions[CostQuantity.SECONDS], *lengths),
            WeighedPrediction.of(functions[CostQuantity.JOULES], *lengths),
        )  # fmt: skip
        scrape = int(one.ended_seconds // SCRAPE_SECONDS)
        add_row(shown.setdefault(scrape, make_zero_sums()), row)
    place = list(CostQuantity).index(quantity)
    times = np.array([(scrape + 1.0) * SCRAPE_SECONDS for scrape in sorted(shown)])

    def block(basis, part):
        values = [
            [value / unit for value, unit in zip(shown[at][part], UNITS[part], strict=True)]
            for at in sorted(shown)
        ]
        assert len(values[0]) == len(TERMS[basis])
        return SumBlock(basis, np.array(values), times, instances=1)

    return block(COSTS, place), block(ROWS, 2 + place)


def find_errors(form, quantity, coefficients, run):
    """Predicted over true cost of each request of a run, minus 1."""
    cost = CostFunction(quantity, form, tuple(coefficients))
    return [
        cost.evaluate_form(one.arrival.tokens_in, one.tokens_out, one.others)
        / (one.truth.total_joules if quantity is CostQuantity.JOULES else one.truth.seconds)
        - 1.0
        for one in run.measured()
    ]


def refit(seed, quantity, factor):
    """Refit from what profiling gave, off by a factor."""
    return refit_from(seed, quantity, profile(quantity, factor))


def refit_from(seed, quantity, live):
    """Refit an hour's sums from a live profile, and ask the gates."""
    costs, rows = make_blocks(serve(seed), live, quantity)
    refused = [*gates.check_block(costs, LIMITS), *gates.check_rows(rows, LIMITS)]
    assert refused == []
    found = refit_cost(quantity, costs, live, RefitRules(block_seconds=BLOCK_SECONDS), rows)
    return found, list(gates.check_refit(found, LIMITS))


def median_error(errors):
    """The median of their sizes."""
    return median(map(abs, errors))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_a_refit_of_charged_joules_comes_to_the_true_ones(quantity, factor, seed):
    """30% off, or as profiling alone left it: adopted, and closer to the physical truth."""
    found, refused = refit(seed, quantity, factor)
    assert refused == []
    fresh = serve(50)
    live = profile(quantity, factor)
    before = find_errors(live.form, quantity, live.coefficients, fresh)
    after = find_errors(found.form, quantity, found.coefficients, fresh)
    print(f"{quantity.value} {factor}: {median_error(before):.2%} to {median_error(after):.2%}")
    assert abs(median(after)) <= 0.03
    # Fitted to the fresh requests' own truth the form leaves 1.3% (seconds) and 2.9% (joules).
    assert median_error(after) <= 0.04
    assert median_error(after) < median_error(before)


@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_what_a_refit_has_found_the_next_window_keeps(quantity):
    """Adopted once, the new profile is not replaced by a worse one."""
    found, _ = refit(1, quantity, 1.3)
    fresh = serve(50)
    live = CostRegression(
        form=found.form, coefficients=found.coefficients, covariance=found.covariance,
        n=found.solved.n,
    )  # fmt: skip
    again, refused = refit_from(2, quantity, live)
    if refused:
        assert {one.gate for one in refused} <= {gates.GAIN, gates.ORDINARY}
        return
    before = median_error(find_errors(live.form, quantity, live.coefficients, fresh))
    after = median_error(find_errors(again.form, quantity, again.coefficients, fresh))
    assert after <= before + 0.01
