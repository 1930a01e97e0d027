"""Several sequences in one request: what they cost together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.sequences import SINGLE, SequenceCounts

COST = CostFunction(CostQuantity.JOULES, RegressionForm.LOAD, (1.0, 0.1, 2.0, 0.01, 3.0))
counts = st.integers(1, 9)


@given(counts, counts, st.integers(1, 500), st.integers(1, 500), st.integers(0, 9))
def test_they_cost_as_many_times_as_there_are_of_them(prompts, answers, each_in, each_out, running):
    found = SequenceCounts(prompts, answers)
    total = prompts * answers
    assert found.total == total
    one = COST.predict_cost(each_in, each_out, running + total - 1)
    joules = found.predict_joules(COST, each_in * prompts, each_out * total, running)
    assert joules == pytest.approx(total * one)


def test_one_is_one():
    assert SINGLE.predict_joules(COST, 7, 9, 2) == COST.predict_cost(7, 9, 2)
    assert SINGLE.find_mean_tokens(7, 9) == (7, 9)


def test_a_prompt_is_counted_once_for_all_its_answers():
    # vLLM's usage has a prompt's tokens once, however many answers it got.
    assert SequenceCounts(answers=4).find_mean_tokens(10, 80) == (10, 20)
    assert SequenceCounts(prompts=5).find_mean_tokens(10, 80) == (2, 16)
