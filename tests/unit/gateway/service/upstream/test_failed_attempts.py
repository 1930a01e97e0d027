"""Whose fault a failed attempt is, and what the client is told once nobody answered."""

import json
import random

import pytest

from backends.circuit_breaker import EjectionPolicy
from backends.errors import (
    BackendStatusError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
)
from backends.registry import Backend, Deployment, group_backends
from gateway.service.client.errors import (
    BackendsRateLimited,
    BackendsUnavailable,
    BadGateway,
    GatewayTimeout,
    NoServerThere,
    UpstreamRejection,
)
from gateway.service.upstream.failed_attempts import FailedAttempts, all_attempts_failed_error

CONTEXT = "This model's maximum context length is 4096 tokens. However, you requested 4150 tokens."


def said(message="no", **more):
    return json.dumps({"error": {"message": message, "type": "BadRequestError", **more}}).encode()


@pytest.fixture
def fleet():
    """Two deployments of a backend each; one failure ejects."""
    made = [
        Deployment(
            name,
            name,
            name,
            [Backend(f"http://{name}", ejection=EjectionPolicy(after_failures=1))],
            rng=random.Random(1),
        )
        for name in ("a", "b")
    ]
    group_backends(made)
    return made


def fail(failed, deployment, error, context=4096):
    failed.add_failure(error, deployment.backends[0], deployment, context)


def ejected(fleet):
    return [deployment.backends[0].is_ejected for deployment in fleet]


@pytest.mark.parametrize("status", [400, 408, 413, 500, 502, 503])
def test_a_status_of_one_backend_is_its_own(fleet, status):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(status, b"<html>"))
    assert ejected(fleet) == [False, False]
    failed.blame_backends()
    assert ejected(fleet) == [True, False]
    assert fleet[0].backends[0].ejected_for_answers


@pytest.mark.parametrize("status", [400, 408, 413, 500, 502, 503])
def test_a_status_that_two_give_is_the_requests(fleet, status):
    failed = FailedAttempts()
    for deployment in fleet:
        fail(failed, deployment, BackendStatusError(status, b"<html>"))
    failed.blame_backends()
    assert ejected(fleet) == [False, False]


def test_two_statuses_are_one_fault_each(fleet):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(500, b""))
    fail(failed, fleet[1], BackendStatusError(502, b""))
    failed.blame_backends()
    assert ejected(fleet) == [True, True]


def test_one_address_asked_for_two_models_is_one_backend(fleet):
    failed = FailedAttempts()
    shared = fleet[0].backends[0]
    for deployment in fleet:
        failed.add_failure(BackendStatusError(500, b""), shared, deployment, 4096)
    failed.blame_backends()
    assert shared.is_ejected


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_backends_whoever_else_refuses_it(fleet, status):
    failed = FailedAttempts()
    for deployment in fleet:
        fail(failed, deployment, BackendStatusError(status, said()))
    failed.blame_backends()
    assert ejected(fleet) == [True, True]


def test_a_missing_model_is_one_of_the_address_and_the_model(fleet):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(404, said("The model `a` does not exist.")))
    failed.blame_backends()
    assert ejected(fleet) == [False, False]
    assert not fleet[0].can_ask(fleet[0].backends[0])
    assert fleet[0].can_ask(fleet[0].backends[0], last_resort=True)
    assert not fleet[0].is_served_by(fleet[0].backends[0])
    assert fleet[1].can_ask(fleet[0].backends[0])
    assert not failed.tried
    fleet[0].record_found(fleet[0].backends[0])
    assert fleet[0].can_ask(fleet[0].backends[0])


@pytest.mark.parametrize(
    "error", [BackendUnreachable("x"), ConnectionLost("x"), BackendTimeout("x")]
)
def test_who_does_not_answer_is_to_blame_at_once(fleet, error):
    failed = FailedAttempts()
    fail(failed, fleet[0], error)
    assert ejected(fleet) == [True, False]
    assert not fleet[0].backends[0].ejected_for_answers


def test_nonsense_is_an_answer(fleet):
    failed = FailedAttempts()
    fail(failed, fleet[0], InvalidResponse("html"))
    assert fleet[0].backends[0].ejected_for_answers


def test_429_is_nobodys_fault_and_its_wait_is_remembered(fleet):
    failed = FailedAttempts()
    backend = fleet[0].backends[0]
    fail(failed, fleet[0], BackendStatusError(429, b"", 20.0))
    failed.blame_backends()
    assert ejected(fleet) == [False, False]
    assert 19.0 < backend.wait_seconds <= 20.0
    assert (backend.is_available, backend.is_in_use) == (False, True)
    # Where nobody else can serve, one request at a time may ask.
    assert backend.is_last_resort
    trial = backend.begin_request()
    assert not backend.is_last_resort
    backend.end_request(trial=trial)
    assert backend.is_last_resort


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, said()),
        (422, said()),
        (413, said()),
        (400, b'{"object":"error","message":"old vLLM","code":40303}'),
        (422, b'{"detail":[{"loc":["body","n"],"msg":"too many"}]}'),
    ],
)
def test_vllms_own_refusal_is_the_clients(fleet, status, body):
    failed = FailedAttempts()
    with pytest.raises(UpstreamRejection):
        fail(failed, fleet[0], BackendStatusError(status, body))
    assert not failed.errors


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, said()) for status in (404, 408, 409, 425, 499)),
        (400, b"<html>400 Request Header Or Cookie Too Large</html>"),
        (413, b"<html>413 Request Entity Too Large</html>"),
        (405, b'{"detail":"Method Not Allowed"}'),
        (400, b'{"message":"no Route matched with those values"}'),
        (402, b'{"error":"quota"}'),
        (400, b""),
        (400, b"[1,2]"),
    ],
)
def test_what_is_not_vllms_is_a_failed_attempt(fleet, status, body):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(status, body))
    assert isinstance(failed.build_error(), BadGateway)
    assert not failed.is_requests_fault


@pytest.mark.parametrize("status", [400, 413, 431])
def test_a_4xx_that_two_give_is_passed_on(fleet, status):
    failed = FailedAttempts()
    for deployment in fleet:
        fail(failed, deployment, BackendStatusError(status, b"<html>large</html>"))
    assert failed.is_requests_fault
    error = failed.build_error()
    assert (type(error), error.status) == (UpstreamRejection, status)


@pytest.mark.parametrize("status", [404, 408, 409, 425, 499, 500])
def test_what_cannot_be_the_clients_is_never_passed_on(fleet, status):
    failed = FailedAttempts()
    for deployment in fleet:
        fail(failed, deployment, BackendStatusError(status, said()))
    assert not failed.is_requests_fault
    assert failed.build_error().status in {502, 503}


@pytest.mark.parametrize(
    "message",
    [
        CONTEXT,
        "The decoder prompt (length 9000) is longer than the maximum model length of 4096.",
        "max_tokens=5000 cannot be greater than max_model_len=4096.",
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 8000. This model's maximum "
            "context length is 4096 tokens and your request has 2778 input tokens."
        ),
        (
            "You passed 4097 input tokens and requested 1 output tokens. However, the model's "
            "context length is only 4097 tokens, resulting in a maximum input length of 4096."
        ),
        "Input length (9000) exceeds model's maximum context length (4096).",
    ],
)
def test_a_context_refusal_is_nobodys_fault_and_free(fleet, message):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(400, said(message)), context=4096)
    failed.blame_backends()
    assert ejected(fleet) == [False, False]
    assert failed.refused_context == 4096
    assert failed.cost_nothing
    error = failed.build_error()
    assert (type(error), error.status) == (UpstreamRejection, 400)


def test_after_a_context_refusal_the_others_failure_is_what_the_client_is_told(fleet):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendStatusError(400, said(CONTEXT)))
    fail(failed, fleet[1], BackendUnreachable("refused"))
    assert isinstance(failed.build_error(), BackendsUnavailable)


def test_a_refused_connection_costs_nothing_and_a_lost_one_does(fleet):
    failed = FailedAttempts()
    fail(failed, fleet[0], BackendUnreachable("refused"))
    assert (failed.cost_nothing, failed.count) == (True, 0)
    fail(failed, fleet[1], ConnectionLost("reset"))
    assert (failed.cost_nothing, failed.count) == (False, 1)


BUSY = BackendStatusError(429, b"", 7.0)


@pytest.mark.parametrize(
    ("failures", "kind", "code", "retry_after"),
    [
        ([], BackendsUnavailable, "no_backend_available", 1),
        ([BackendUnreachable("refused")], NoServerThere, "backends_failed", 1),
        ([BackendTimeout("x"), ConnectionLost("reset")], BackendsUnavailable, "backends_failed", 1),
        ([BackendStatusError(503, b"")], BackendsUnavailable, "backends_failed", 1),
        ([BackendStatusError(503, b"", 4.2)], NoServerThere, "backends_failed", 5),
        ([BackendUnreachable("x"), BackendTimeout("quiet")], GatewayTimeout, "upstream_timeout", 1),
        ([InvalidResponse("html")], BadGateway, "bad_gateway", 1),
        (
            [BackendUnreachable("x"), BackendStatusError(401, b"")],
            BadGateway,
            "upstream_auth_failed",
            60,
        ),
        ([BackendStatusError(403, b"")], BadGateway, "upstream_auth_failed", 60),
        ([BUSY], BackendsRateLimited, "rate_limited", 7),
        ([BUSY, BackendStatusError(429, b"", 2.5)], BackendsRateLimited, "rate_limited", 3),
        ([BackendStatusError(429, b"", None)], BackendsRateLimited, "rate_limited", 1),
        ([BackendStatusError(429, b"", 0.0)], BackendsRateLimited, "rate_limited", 1),
        ([BackendStatusError(429, b"", 60.0)], BackendsRateLimited, "rate_limited", 60),
        (
            [BackendUnreachable("x"), BackendStatusError(503, b"", 1.0)],
            NoServerThere,
            "backends_failed",
            1,
        ),
        ([BackendStatusError(503, b"", 4.2), BUSY], BackendsUnavailable, "backends_failed", 5),
        ([BackendStatusError(404, b"")], BadGateway, "bad_gateway", 1),
        ([BackendStatusError(409, b"")], BadGateway, "bad_gateway", 1),
        ([BUSY, BackendStatusError(499, b"")], BadGateway, "bad_gateway", 1),
        ([BUSY, BackendUnreachable("x")], BackendsUnavailable, "backends_failed", 1),
    ],
)
def test_what_a_client_is_told(failures, kind, code, retry_after):
    error = all_attempts_failed_error(failures)
    assert type(error) is kind
    assert (error.code, error.retry_after_seconds) == (code, retry_after)
    assert dict(error.build_headers())[b"x-should-retry"] == b"false"


def test_our_key_is_not_spoken_of():
    error = all_attempts_failed_error([BackendStatusError(401, b'{"error":"bad key sk-123"}')])
    assert "sk-123" not in error.message
