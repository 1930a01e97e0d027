"""Tokens out: clamp(round(slope*in + intercept), 1, limit)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
        (10, 54, 54),
        (10, 53, 53),
        (10, 1, 1),
        (10, 0, 1),
        (10, -5000, 1),
    ],
)
def test_the_limit_clamps(tokens_in, limit, expected):
    assert DEFAULT_OUTPUT.predict_output_tokens(tokens_in, limit) == expected


def test_a_falling_line_stops_at_one():
    assert OutputModel(-1.0, 5.0).predict_output_tokens(100, 1000) == 1


@given(
    st.floats(-1e3, 1e3), st.floats(-1e5, 1e5), st.integers(1, 10**6), st.integers(-(10**6), 10**6)
)
def test_the_formula(slope, intercept, tokens_in, limit):
    line = round(slope * tokens_in + intercept)
    upper = max(limit, 1)
    wanted = sorted((1, line, upper))[1]
    assert OutputModel(slope, intercept).predict_output_tokens(tokens_in, limit) == wanted


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
