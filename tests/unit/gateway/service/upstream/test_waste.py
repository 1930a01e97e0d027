"""What a failed attempt is put down for, by the time it took."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.sequences import SequenceCounts
from gateway.service.upstream.waste import estimate_waste, guess_unseen_tokens
from gateway.telemetry.request_stages import WastedEnergy

PREDICTED = SimpleNamespace(model="m", predicted_seconds=4.0, predicted_joules=80.0)
numbers = st.floats(-10.0, 10.0)


def taking(*coefficients, form=RegressionForm.ADDITIVE, context=4096):
    """An option that takes so many seconds."""
    seconds = CostFunction(CostQuantity.SECONDS, form, coefficients)
    return SimpleNamespace(seconds=seconds, context=context)


@pytest.mark.parametrize("reason", ["abandoned", "silent"])
@pytest.mark.parametrize(("seconds", "joules"), [(0.0, 0.0), (1.0, 20.0), (400.0, 80.0)])
def test_one_that_was_worked_on_cost_its_share_of_what_was_predicted(reason, seconds, joules):
    assert estimate_waste(reason, PREDICTED, seconds) == [WastedEnergy("m", joules)]


@pytest.mark.parametrize("reason", [None, "unreachable", "lost", "status_5xx", "status_429"])
def test_one_that_was_not_cost_nothing(reason):
    assert estimate_waste(reason, PREDICTED, 4.0) == []


def test_tokens_are_guessed_by_the_time_that_the_prompt_left():
    # 0.5 s and 1 ms a token of the prompt, 20 ms one of the answer.
    option = taking(0.5, 0.001, 0.02)
    assert guess_unseen_tokens(option, 100, 0, 0.6) == 0
    assert guess_unseen_tokens(option, 100, 0, 1.6) == 50
    assert guess_unseen_tokens(option, 100, 0, 1e6) == 4096


def test_others_beside_it_leave_time_for_fewer():
    # 20 ms a token alone, 10 ms more for each that runs beside it.
    option = taking(0.0, 0.0, 0.02, 0.0, 0.01, form=RegressionForm.LOAD)
    assert [guess_unseen_tokens(option, 100, n, 1.2) for n in (0, 1, 4)] == [60, 40, 20]


@given(numbers, numbers, numbers, st.integers(0, 10**6), st.floats(0.0, 1e6))
def test_a_guess_is_never_negative_nor_above_the_context(b0, b1, b2, prompt, seconds):
    assert 0 <= guess_unseen_tokens(taking(b0, b1, b2), prompt, 0, seconds) <= 4096


def test_several_answers_are_guessed_side_by_side():
    option = taking(0.5, 0.001, 0.02)
    several = SequenceCounts(prompts=2, answers=2)
    assert guess_unseen_tokens(option, 200, 0, 1.6, several) == 4 * 50
    assert guess_unseen_tokens(option, 200, 0, 1e6, several) == 4 * 4096
