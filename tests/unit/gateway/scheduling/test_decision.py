"""Weights, and the public shape of a decision."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.decision import (
    ExcludedCandidate,
    MetricWeights,
    PlacePrediction,
    PredictionBounds,
    RoutingDecision,
    ScoredCandidate,
)

finite = st.floats(0.0, allow_nan=False, allow_infinity=False)


@given(finite, finite, finite)
def test_weights_sum_to_one_whatever_was_given(accuracy, energy, time):
    if accuracy == energy == time == 0.0:
        with pytest.raises(ValueError, match="must not all be zero"):
            MetricWeights.from_values(accuracy, energy, time)
        return
    made = MetricWeights.from_values(accuracy, energy, time)
    parts = (made.accuracy, made.energy, made.time)
    assert math.isclose(sum(parts), 1.0, rel_tol=1e-15)
    assert all(0.0 <= part <= 1.0 for part in parts)


@given(st.tuples(*[st.floats(1e-3, 1e3)] * 3))
def test_weights_keep_their_proportions(given_weights):
    made = MetricWeights.from_values(*given_weights)
    total = sum(given_weights)
    wanted = [value / total for value in given_weights]
    assert [made.accuracy, made.energy, made.time] == pytest.approx(wanted, rel=1e-12)


def test_a_missing_weight_counts_zero():
    assert MetricWeights.from_values(energy=7.0) == MetricWeights(0.0, 1.0, 0.0)
    assert MetricWeights.from_values(accuracy=3, time=1) == MetricWeights(0.75, 0.0, 0.25)
    assert MetricWeights.from_values(1e308, 1e308, 1e308).accuracy == pytest.approx(1 / 3)
    assert MetricWeights.from_values(5e-324, 0, 0) == MetricWeights(1.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [-1e-9, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_weight_is_refused(bad, place):
    given_weights = [1.0, 1.0, 1.0]
    given_weights[place] = bad
    with pytest.raises(ValueError, match="must be finite and not negative"):
        MetricWeights.from_values(*given_weights)


BEST = ScoredCandidate(
    "m", "m-a100", 0.25, 0.7, 1.5, 20.0, (0.3, 0.0, 0.1), (0.15, 0.0, 0.1), 2, 3, 11, 40, True,
    25.0, 99, "application", AnswerLength(3.5, 0.5), "gpu-1:8000",
    (PlacePrediction("gpu-1:8000", "fullest", 2, 1.5, 20.0),),
)  # fmt: skip
WORSE = ScoredCandidate(
    "n", "n", 0.5, 0.6, 2.5, 30.0, (0.4, 1.0, 1.0), (0.2, 0.2, 0.1), 0, 0, 12, 41, False,
    30.0, 99, "profile", AnswerLength(3.0, 0.8), "", (PlacePrediction("", "only", 0, 2.5, 30.0),),
)  # fmt: skip
DECISION = RoutingDecision(
    policy="hybrid",
    weights=MetricWeights(0.5, 0.25, 0.25),
    candidates=(BEST, WORSE),
    excluded=(ExcludedCandidate("p", "p-h100", "down", "down: no usable backend"),),
    feasible=True,
    profile_version="abc",
    reference_load=2.5,
)


def test_the_shape_is_the_contracts():
    shown = DECISION.to_dict(request_id="req_1", decision_us=42.5)
    wanted = {
        "id": "req_1",
        "model": "m",
        "policy": "hybrid",
        "weights": {"accuracy": 0.5, "energy": 0.25, "time": 0.25},
        "tokens": {"input": 11, "output": 40, "output_p90": 99, "source": "application"},
        "score": 0.25,
        "profile_version": "abc",
        "reference_load": 2.5,
        "decision_us": 42.5,
        "candidates": [
            {
                "model": "m",
                "deployment": "m-a100",
                "score": 0.25,
                "accuracy": 0.7,
                "predicted_seconds": 1.5,
                "predicted_joules": 20.0,
                "reference_joules": 25.0,
                "tokens": {
                    "input": 11, "output": 40, "output_p90": 99, "source": "application",
                    "mu": 3.5, "sigma": 0.5,
                },
                "costs": {"accuracy": 0.3, "energy": 0.0, "time": 0.1},
                "terms": {"accuracy": 0.15, "energy": 0.0, "time": 0.1},
                "backend": "gpu-1:8000",
                "running": 2,
                "queued": 3,
                "places": [
                    {
                        "backend": "gpu-1:8000", "why": "fullest", "running": 2,
                        "predicted_seconds": 1.5, "predicted_joules": 20.0,
                    }
                ],
            },
            {
                "model": "n",
                "deployment": "n",
                "score": 0.5,
                "accuracy": 0.6,
                "predicted_seconds": 2.5,
                "predicted_joules": 30.0,
                "reference_joules": 30.0,
                "tokens": {
                    "input": 12, "output": 41, "output_p90": 99, "source": "profile",
                    "mu": 3.0, "sigma": 0.8,
                },
                "costs": {"accuracy": 0.4, "energy": 1.0, "time": 1.0},
                "terms": {"accuracy": 0.2, "energy": 0.2, "time": 0.1},
                "backend": None,
                "running": 0,
                "queued": 0,
                "places": [],
            },
        ],
        "excluded": [{"model": "p", "deployment": "p-h100", "reason": "down: no usable backend"}],
        "feasible": True,
    }  # fmt: skip
    assert shown == wanted
    json.dumps(shown, allow_nan=False)


def test_a_decision_for_nobody_keeps_the_shape():
    empty = RoutingDecision("fair-ols", MetricWeights(1, 0, 0), (), DECISION.excluded, False, "abc")
    shown = empty.to_dict(request_id="r", decision_us=1.0)
    assert shown.keys() == DECISION.to_dict(request_id="r", decision_us=1.0).keys()
    assert (shown["model"], shown["score"], shown["candidates"]) == (None, None, [])
    assert set(shown["tokens"].values()) == {None}
    assert shown["feasible"] is False


def test_bounds_are_open_by_default():
    assert PredictionBounds() == PredictionBounds(None, None, None, 0.9)
