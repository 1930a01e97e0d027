"""The last requests, oldest out first."""

from gateway.scheduling.decision import MetricWeights, RoutingDecision
from gateway.telemetry.recent import RecentRequests
from gateway.telemetry.request_stages import BackendAttempt
from tests.unit.gateway.telemetry.request_records import make_record

DECISION = RoutingDecision("fair-ols", MetricWeights(0.5, 0.3, 0.2), (), (), True, "v")


def record(request_id, **more):
    fields = {"at": 1.5, "kind": "chat", "requested": "auto", "preset": "default", "stream": False}
    return make_record(id=request_id, **{**fields, **more})


def test_a_record_is_found_by_its_id():
    recent = RecentRequests(2)
    kept = record("a")
    recent.add_record(kept)
    assert recent.get_record("a") is kept
    assert recent.get_record("b") is None


def test_the_oldest_goes_first():
    recent = RecentRequests(2)
    for name in "abc":
        recent.add_record(record(name))
    assert [recent.get_record(name) is not None for name in "abc"] == [False, True, True]


def test_an_id_used_again_replaces_its_record_and_is_young():
    recent = RecentRequests(2)
    first, again = record("a"), record("a")
    for one in (first, record("b"), again, record("c")):
        recent.add_record(one)
    assert recent.get_record("a") is again
    assert recent.get_record("b") is None


def test_a_limit_of_zero_keeps_nothing():
    recent = RecentRequests(0)
    recent.add_record(record("a"))
    assert recent.get_record("a") is None


def test_what_is_shown_of_a_record():
    shown = record(
        "req_1",
        model="m",
        deployment="m-a100",
        backend="a:8000",
        code=200,
        prompt_tokens=12,
        completion_tokens=4,
        cached_tokens=8,
        seconds=1.25,
        ttft_seconds=0.5,
        serving_seconds=1.2,
        running=3,
        decision=DECISION,
        decision_seconds=0.00004,
        counted_tokens=11,
        asked_tokens=64,
        predicted_seconds=2.0,
        predicted_joules=30.0,
        predicted_ttft_seconds=0.4,
        predicted_tpot_seconds=0.04,
        joules=25.0,
        method="estimated",
        attempts=[BackendAttempt("m", "b:8000", "silent"), BackendAttempt("m", "a:8000", None)],
    ).to_dict()
    assert shown == {
        "id": "req_1",
        "at": 1.5,
        "kind": "chat",
        "requested": "auto",
        "preset": "default",
        "model": "m",
        "deployment": "m-a100",
        "backend": "a:8000",
        "stream": False,
        "code": 200,
        "error": None,
        "usage": {"prompt_tokens": 12, "completion_tokens": 4, "cached_tokens": 8},
        "predicted": {
            "seconds": 2.0,
            "ttft_seconds": 0.4,
            "time_per_output_token_seconds": 0.04,
            "joules": 30.0,
        },
        "observed": {
            "seconds": 1.25,
            "serving_seconds": 1.2,
            "ttft_seconds": 0.5,
            "joules": 25.0,
            "method": "estimated",
            "co2e_grams": None,
            "boundary": None,
        },
        "compared": {"live": None, "shadow": None},
        "running": 3,
        "mean_running": None,
        "harmonic_running": None,
        "counted_tokens": 11,
        "asked_tokens": 64,
        "arm": None,
        "attempts": [
            {"model": "m", "backend": "b:8000", "reason": "silent"},
            {"model": "m", "backend": "a:8000", "reason": None},
        ],
        "decision": DECISION.to_dict(request_id="req_1", decision_us=40.0),
    }


def test_a_request_that_reached_no_model():
    shown = record("r", code=404, error="no such model").to_dict()
    assert (shown["model"], shown["deployment"], shown["backend"]) == (None, None, None)
    assert shown["decision"] is None
    assert (shown["code"], shown["error"], shown["attempts"]) == (404, "no such model", [])
