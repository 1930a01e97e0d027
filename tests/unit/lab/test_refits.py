"""Refits of what the ledger charged, held against the physical truth, on the virtual clock.

A few windows of each drill; `python -m tests.bench refits` runs twenty, docs/recalibration.md has
what came of them.
"""

from random import Random

import pytest

from calibration.recalibrate import gates
from gateway.scheduling.cost import CostQuantity
from tests.lab.costs import H100
from tests.lab.drills import DRILLS, run_drill
from tests.lab.refits import (
    JOULES,
    fit_truth,
    make_profile,
    make_true_profile,
    median_error,
    recalibrate,
    select_cost,
    select_part,
    serve,
)

SEEDS = (1, 2, 3)
pytestmark = pytest.mark.slow
TRUE = [one for one in DRILLS if one.factor == 1.0]
OFF = [one for one in DRILLS if one.factor != 1.0 and one.rounds == 1]
FAR = [one for one in DRILLS if one.rounds > 1]


def name(drill):
    return drill.name


def test_a_true_profile_of_joules_is_the_step_model_itself():
    """What profiling alone would find is what traffic shows: nothing stands in for the load."""
    _, prompt, own, context, shared = fit_truth("clean", JOULES).coefficients
    truth = H100.joules
    assert prompt == pytest.approx(truth.per_prompt_token, rel=0.05)
    assert own == pytest.approx(truth.per_sequence, rel=0.1)
    assert context == pytest.approx(truth.per_context_token, rel=0.5)
    assert shared == pytest.approx(truth.fixed, rel=0.02)
    assert median_error(make_true_profile(), JOULES) <= 0.01


@pytest.mark.parametrize("drill", TRUE, ids=name)
def test_a_true_profile_is_not_fooled_out_of_office(drill):
    seeds = SEEDS if drill.traffic == "clean" else SEEDS[:1]
    for result in run_drill(drill, seeds).values():
        assert result.worse_by <= 0.05
        assert result.adopted == 0


@pytest.mark.parametrize("drill", OFF, ids=name)
def test_a_profile_that_is_30_percent_off_is_mended_at_once(drill):
    for result in run_drill(drill, SEEDS).values():
        assert result.adopted == result.runs
        assert result.worst <= 0.03


@pytest.mark.parametrize("drill", FAR, ids=name)
def test_a_profile_that_is_4_times_off_is_mended_in_three_rounds(drill):
    for result in run_drill(drill, SEEDS[:1]).values():
        assert result.adopted == result.runs
        assert result.worst <= 0.05


@pytest.mark.parametrize("lost", [one for one in DRILLS if "without joules" in one.name], ids=name)
def test_joules_that_are_missing_where_requests_are_dear_are_noticed(lost):
    rows = lost.spoil(Random(1), serve("clean", 1))
    joules = select_part(recalibrate(rows, make_true_profile()), JOULES)
    assert [one.gate for one in joules.refusals] == ["missing"]


@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_what_a_refit_has_found_the_next_window_keeps(quantity):
    found = recalibrate(serve("clean", 1), make_true_profile(factor=1.3)).entry
    outcome = recalibrate(serve("clean", 2), make_profile(found.seconds, found.joules))
    refused = select_part(outcome, quantity).refusals
    assert {one.gate for one in refused} <= {gates.GAIN, gates.ORDINARY}
    if not refused:
        assert median_error(outcome.entry, quantity) <= median_error(found, quantity) + 0.01
    assert select_cost(found, quantity).coefficients[4] > 0.0
