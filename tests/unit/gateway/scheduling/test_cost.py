"""The cost forms against DESIGN section 3, evaluated exactly with fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.cost import COST_FLOOR, CostFunction, CostQuantity, RegressionForm

TERMS = {
    RegressionForm.ADDITIVE: 3,
    RegressionForm.INTERACTION: 4,
    RegressionForm.CONTEXT: 4,
    RegressionForm.LOAD: 5,
    RegressionForm.LOAD_CONTEXT: 5,
}
CONTEXT = (RegressionForm.CONTEXT, RegressionForm.LOAD_CONTEXT)


def exactly(cost, i, o, r, cached=0):
    """b0 + b1 (i-c) + b2 o [+ b3 i o or o(i+o/2)] [+ b4 o/(1+r) for joules, b4 o r for seconds]."""
    b = [Fraction(value) for value in cost.coefficients]
    quantity = cost.quantity
    last = Fraction(o, 1 + r) if quantity is CostQuantity.JOULES else Fraction(o * r)
    terms = [b[0], b[1] * (i - cached), b[2] * o]
    if len(b) > 3:
        terms.append(b[3] * o * (i + Fraction(o, 2) if cost.form in CONTEXT else i))
    if len(b) > 4:
        terms.append(b[4] * last)
    return sum(terms), sum(abs(term) for term in terms)


@st.composite
def costs(draw, limit=1e6):
    form = draw(st.sampled_from(RegressionForm))
    coefficient = st.floats(-limit, limit)
    drawn = draw(st.lists(coefficient, min_size=TERMS[form], max_size=TERMS[form]))
    return CostFunction(draw(st.sampled_from(CostQuantity)), form, tuple(drawn))


token_counts = st.integers(1, 200_000)
loads = st.integers(0, 1000)


@given(costs(), token_counts, token_counts, loads, st.integers(0, 200_000))
def test_the_forms_are_those_of_the_contract(cost, i, o, r, cached):
    cached = min(i, cached)
    wanted, magnitude = exactly(cost, i, o, r, cached)
    error = abs(Fraction(cost.evaluate_form(i, o, r, cached)) - wanted)
    # Below 1e-300 a float has fewer digits, down to one.
    assert error <= magnitude * Fraction(1, 10**12) + Fraction(1, 10**300)


@given(costs(), token_counts, token_counts, loads)
def test_a_token_costs_the_mean_over_its_answer(cost, i, o, r):
    whole = cost.evaluate_form(i, o, r) - cost.evaluate_form(i, 0, r)
    largest = sum(map(abs, cost.coefficients)) * (1 + i) * (1 + o) * (1 + r)
    assert cost.cost_per_output_token(i, r, o) * o == pytest.approx(whole, abs=1e-9 * largest)


def test_worked_by_hand():
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.ADDITIVE, (1.0, 2.0, 3.0)).evaluate_form(
            10, 100
        )
        == 321.0
    )
    assert (
        CostFunction(
            CostQuantity.JOULES, RegressionForm.INTERACTION, (1.0, 2.0, 3.0, 0.5)
        ).evaluate_form(10, 100)
        == 821.0
    )
    b = (1.0, 2.0, 3.0, 0.5, 4.0)
    # 821 + 4*100/(1+3) joules, 821 + 4*100*3 seconds
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.LOAD, b).evaluate_form(10, 100, 3) == 921.0
    )
    assert (
        CostFunction(CostQuantity.SECONDS, RegressionForm.LOAD, b).evaluate_form(10, 100, 3)
        == 2021.0
    )
    # 821 + 0.5*100*100/2; the prompt's 10 tokens cost nothing where they are cached
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.CONTEXT, b[:4]).evaluate_form(10, 100)
        == 3321.0
    )
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.CONTEXT, b[:4]).evaluate_form(
            10, 100, 0, 10
        )
        == 3301.0
    )
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.LOAD_CONTEXT, b).evaluate_form(10, 100, 3)
        == 3421.0
    )
    # alone: all of it for joules, none of it for seconds
    assert (
        CostFunction(CostQuantity.JOULES, RegressionForm.LOAD, b).evaluate_form(10, 100) == 1221.0
    )
    assert (
        CostFunction(CostQuantity.SECONDS, RegressionForm.LOAD, b).evaluate_form(10, 100) == 821.0
    )


@pytest.mark.parametrize(
    "form", [RegressionForm.ADDITIVE, RegressionForm.INTERACTION, RegressionForm.CONTEXT]
)
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_the_forms_without_a_load_term_know_no_load(quantity, form):
    cost = CostFunction(quantity, form, (1.0, 2.0, 3.0, 0.5)[: form.term_count])
    assert cost.evaluate_form(7, 9, 0) == cost.evaluate_form(7, 9, 50)


@given(costs(limit=1e12), token_counts, token_counts, loads)
def test_a_prediction_is_the_form_or_the_floor(cost, i, o, r):
    raw = cost.evaluate_form(i, o, r)
    assert cost.predict_cost(i, o, r) == max(raw, COST_FLOOR)
    assert COST_FLOOR > 0.0


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=5, max_size=5),
    st.sampled_from(CostQuantity),
    token_counts,
    token_counts,
    loads,
)
def test_no_finite_coefficients_give_nan_or_less_than_the_floor(drawn, quantity, i, o, r):
    try:
        cost = CostFunction(quantity, RegressionForm.LOAD, tuple(drawn))
    except ValueError:
        return  # refusing them is as good
    predicted = cost.predict_cost(i, o, r)
    assert math.isfinite(predicted)
    assert predicted >= COST_FLOOR


@pytest.mark.parametrize("form", list(RegressionForm))
@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_wrong_number_of_coefficients_is_refused(form, off_by):
    with pytest.raises(ValueError, match=rf"'{form.value}' takes {TERMS[form]} coefficients, not"):
        CostFunction(CostQuantity.SECONDS, form, (0.0,) * (TERMS[form] + off_by))


@pytest.mark.parametrize("form", list(RegressionForm))
def test_terms(form):
    assert form.term_count == TERMS[form]
