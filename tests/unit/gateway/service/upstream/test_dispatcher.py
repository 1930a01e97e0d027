"""What a backend is sent, and what a client is told when nobody answered."""

import json

import pytest

from backends.errors import (
    BackendStatusError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
)
from gateway.service.client.errors import (
    BackendsRateLimited,
    BackendsUnavailable,
    BadGateway,
    GatewayTimeout,
)
from gateway.service.request.body import decode_members, encode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.upstream.failure_response import all_attempts_failed_error
from gateway.service.upstream.upstream_body import build_upstream_members


def sent(body, kind=EndpointKind.CHAT, served="microsoft/Phi-3"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return encode_members(
        build_upstream_members(parse_request(kind, decode_members(raw)), served)
    ).decode()


def test_only_the_model_differs():
    body = b'{"model":"auto","messages":[ {"role":"user"} ],"seed":1E2,"new":{"x": [1,  2]}}'
    assert sent(body) == (
        '{"model":"microsoft/Phi-3","messages":[ {"role":"user"} ],"seed":1E2,"new":{"x": [1,  2]}}'
    )


def test_the_steering_object_is_stripped():
    body = {"joulegate": {"weights": {"energy": 1}}, "model": "auto", "messages": []}
    assert json.loads(sent(body)) == {"model": "microsoft/Phi-3", "messages": []}


def options(**members):
    body = {"model": "auto", "messages": [], "stream": True, **members}
    return json.loads(sent(body)).get("stream_options")


def test_usage_is_asked_for_where_a_stream_did_not():
    assert options() == {"include_usage": True}
    assert options(stream_options=None) == {"include_usage": True}
    assert options(stream_options={}) == {"include_usage": True}
    assert options(stream_options={"include_usage": False, "x": [1]}) == {
        "include_usage": True,
        "x": [1],
    }
    # It counts only with include_usage, which the client did not set.
    assert options(stream_options={"continuous_usage_stats": True}) == {"include_usage": True}


def test_what_the_client_asked_of_usage_stays():
    asked = {"include_usage": True, "continuous_usage_stats": True}
    assert options(stream_options=asked) == asked


def test_a_unary_request_has_no_stream_options():
    assert options(stream=False) is None
    embedding = {"model": "e", "input": "x", "stream": True}
    assert "stream_options" not in json.loads(sent(embedding, EndpointKind.EMBEDDINGS))


def test_the_clients_own_members_are_left_alone():
    ask = parse_request(
        EndpointKind.CHAT, decode_members(b'{"model":"auto","stream":true,"joulegate":{}}')
    )
    before = dict(ask.members)
    build_upstream_members(ask, "m")
    assert ask.members == before


BUSY = BackendStatusError(429, b"", "7")


@pytest.mark.parametrize(
    ("failures", "kind", "code", "retry_after"),
    [
        ([], BackendsUnavailable, "no_backend_available", 1),
        ([BackendUnreachable("refused")], BackendsUnavailable, "backends_failed", 1),
        ([BackendTimeout("x"), ConnectionLost("reset")], BackendsUnavailable, "backends_failed", 1),
        ([BackendStatusError(503, b"")], BackendsUnavailable, "backends_failed", 1),
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
        ([BUSY, BackendStatusError(429, b"", "3")], BackendsRateLimited, "rate_limited", 3),
        ([BackendStatusError(429, b"", None)], BackendsRateLimited, "rate_limited", 1),
        ([BackendStatusError(429, b"", "0")], BackendsRateLimited, "rate_limited", 1),
        ([BackendStatusError(429, b"", "3600")], BackendsRateLimited, "rate_limited", 60),
        (
            [BackendStatusError(429, b"", "Fri, 20 Nov 2026 07:00:00 GMT")],
            BackendsRateLimited,
            "rate_limited",
            1,
        ),
        ([BackendStatusError(429, b"", "\u00b2")], BackendsRateLimited, "rate_limited", 1),
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
