"""Tokens out: the expected length, clamped between 1 and the limit, of a line or a log-normal."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.features import DEFAULT_OUTPUT, OutputModel, RequestFeatures

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_the_default_is_the_published_heuristic():
    assert (DEFAULT_OUTPUT.slope, DEFAULT_OUTPUT.intercept) == (1.028, 44.12)
    assert OutputModel() == DEFAULT_OUTPUT
    # 1.028 * 100 + 44.12 = 146.92
    assert DEFAULT_OUTPUT.predict_output_tokens(100, 10_000) == 147


@pytest.mark.parametrize(
    ("tokens_in", "limit", "expected"),
    [
        (10, 1000, 54),  # 10.28 + 44.12 = 54.4
        # E[min(o, 54)] of a mean of 54.4: many answers are shorter, none is longer
        (10, 54, 37),
        (10, 1, 1),
        (10, 0, 1),
        (10, -5000, 1),
    ],
)
def test_the_limit_clamps(tokens_in, limit, expected):
    assert DEFAULT_OUTPUT.predict_output_tokens(tokens_in, limit) == expected


def test_a_falling_line_stops_at_one():
    assert OutputModel(-1.0, 5.0).predict_output_tokens(100, 1000) == 1


@given(st.floats(-1e2, 1e2), st.floats(-1e3, 1e3), st.integers(1, 10**4))
def test_the_lines_value_is_the_mean(slope, intercept, tokens_in):
    # The clamp at 1 lifts the mean of the very short a little.
    line = max(1.0, slope * tokens_in + intercept)
    got = OutputModel(slope, intercept).describe(tokens_in).compute_mean(1e-9, 1e12)
    assert got == pytest.approx(line, rel=1e-6)


def test_a_log_normal_is_taken_as_it_is():
    assert OutputModel(mu=4.0, sigma=0.5).describe(100) == AnswerLength(4.0, 0.5)


@given(finite, finite, st.integers(1, 10**6), st.integers(1, 10**6))
@example(slope=1.7e308, intercept=0.0, tokens_in=100, limit=50)
@example(slope=1.7e308, intercept=-1.7e308, tokens_in=100, limit=50)
@example(slope=-1.7e308, intercept=0.0, tokens_in=100, limit=50)
def test_any_finite_line_stays_within_one_and_the_limit(slope, intercept, tokens_in, limit):
    assert 1 <= OutputModel(slope, intercept).predict_output_tokens(tokens_in, limit) <= limit


def test_features_are_plain_values():
    features = RequestFeatures(7)
    assert (features.asked_tokens_out, features.needs, features.lenient) == (
        None,
        frozenset(),
        False,
    )
    assert features == RequestFeatures(7)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (OutputModel(0.02816, 44.12), "0.02816 i +44.12"),
        (OutputModel(1.0, -3.0), "1 i -3"),
        (OutputModel(mu=5.25, sigma=0.7), "log-normal: mu 5.25, sigma 0.7"),
    ],
)
def test_a_length_is_written_in_the_form_that_it_has(model, words):
    assert model.write_formula() == words
