"""A simulated model's truth: where it comes from, and how long its answers are."""

import math
from dataclasses import replace
from random import Random

import pytest

from backends.simulator.cost_model import CostModel, SimulatedCost
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from tests.unit.backends.simulator.engines import PHI


def test_answers_have_the_models_mean_length():
    rng = Random(3)
    drawn = [PHI.draw_tokens_out(30, rng) for _ in range(4000)]
    mean = 1.028 * 30 + 44.12
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)
    assert len(set(drawn)) > 50
    assert replace(PHI, output_sd=0.0).draw_tokens_out(30, rng) == round(mean)


@pytest.mark.parametrize("sigma", [{}, {"sigma": 0.8}])
def test_a_refitted_entry_answers_as_its_log_normal_says(sigma):
    costs = {"form": "additive", "coefficients": [1, 2, 3]}
    output = {"form": "lognormal", "mu": 5.0, "n": 300} | sigma
    truth = CostModel.from_profile({"output": output, "seconds": costs, "joules": costs})
    assert truth.output_sd == 0.8
    rng = Random(3)
    drawn = sorted(truth.draw_tokens_out(30, rng) for _ in range(4001))
    assert drawn[2000] == pytest.approx(math.exp(5.0), rel=0.05)


def test_a_truth_comes_from_a_profile_entry():
    entry = {
        "accuracy": {"default": 0.685},
        "output": {"slope": 0.028, "intercept": 44.12},
        "seconds": {"form": "additive", "coefficients": [1, 2, 3], "n": 5},
        "joules": {"form": "interaction", "coefficients": [1, 2, 3, 4]},
    }
    truth = CostModel.from_profile(entry, idle_watts=10.0)
    assert truth.seconds == SimulatedCost("additive", (1.0, 2.0, 3.0))
    assert truth.joules == SimulatedCost("interaction", (1.0, 2.0, 3.0, 4.0))
    assert (truth.output, truth.idle_watts) == ((0.028, 44.12), 10.0)
    with pytest.raises(ValueError, match="has 3 coefficients"):
        SimulatedCost("additive", (1.0, 2.0))


def test_it_has_every_form_that_a_profile_may_have_and_no_other():
    for form in RegressionForm:
        coefficients = (1.0, 2.0, 3.0, 4.0, 5.0)[: form.term_count]
        cost = SimulatedCost(form.value, coefficients)
        assert (cost.has_load, cost.reads_context) == (form.knows_load, form.reads_context)
        # Alone a request's z is 0 for seconds, and o for joules.
        for quantity, alone in (
            (CostQuantity.SECONDS, CostModel(cost, cost).total_seconds(7, 9)),
            (CostQuantity.JOULES, CostModel(cost, cost).total_joules(7, 9)),
        ):
            wanted = CostFunction(quantity, form, coefficients).evaluate_form(7, 9)
            assert alone == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match=r"no cost form 'quadratic' \(known here: additive, "):
        SimulatedCost("quadratic", (1.0, 2.0, 3.0))
