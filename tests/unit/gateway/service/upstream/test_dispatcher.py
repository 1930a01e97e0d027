"""What a backend is sent, and what a client is told when nobody answered."""

import json

import pytest

from backends.errors import BadAnswer, ConnectionLost, Refused, Silent, Unreachable
from gateway.service.client.errors import BadGateway, GatewayTimeout, Overloaded, Unavailable
from gateway.service.request.body import Kind, decode, encode, read
from gateway.service.upstream.failure_response import exhausted
from gateway.service.upstream.upstream_body import forwarded


def sent(body, kind=Kind.CHAT, served="microsoft/Phi-3"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return encode(forwarded(read(kind, decode(raw)), served)).decode()


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
    assert "stream_options" not in json.loads(sent(embedding, Kind.EMBEDDINGS))


def test_the_clients_own_members_are_left_alone():
    ask = read(Kind.CHAT, decode(b'{"model":"auto","stream":true,"joulegate":{}}'))
    before = dict(ask.members)
    forwarded(ask, "m")
    assert ask.members == before


BUSY = Refused(429, b"", "7")


@pytest.mark.parametrize(
    ("failures", "kind", "code", "retry_after"),
    [
        ([], Unavailable, "no_backend_available", 1),
        ([Unreachable("refused")], Unavailable, "backends_failed", 1),
        ([Silent("x"), ConnectionLost("reset")], Unavailable, "backends_failed", 1),
        ([Refused(503, b"")], Unavailable, "backends_failed", 1),
        ([Unreachable("x"), Silent("quiet")], GatewayTimeout, "upstream_timeout", 1),
        ([BadAnswer("html")], BadGateway, "bad_gateway", 1),
        ([Unreachable("x"), Refused(401, b"")], BadGateway, "upstream_auth_failed", 60),
        ([Refused(403, b"")], BadGateway, "upstream_auth_failed", 60),
        ([BUSY], Overloaded, "rate_limited", 7),
        ([BUSY, Refused(429, b"", "3")], Overloaded, "rate_limited", 3),
        ([Refused(429, b"", None)], Overloaded, "rate_limited", 1),
        ([Refused(429, b"", "0")], Overloaded, "rate_limited", 1),
        ([Refused(429, b"", "3600")], Overloaded, "rate_limited", 60),
        ([Refused(429, b"", "Fri, 20 Nov 2026 07:00:00 GMT")], Overloaded, "rate_limited", 1),
        ([Refused(429, b"", "\u00b2")], Overloaded, "rate_limited", 1),
        ([BUSY, Unreachable("x")], Unavailable, "backends_failed", 1),
    ],
)
def test_what_a_client_is_told(failures, kind, code, retry_after):
    error = exhausted(failures)
    assert type(error) is kind
    assert (error.code, error.retry_after_seconds) == (code, retry_after)
    assert dict(error.headers())[b"x-should-retry"] == b"false"


def test_our_key_is_not_spoken_of():
    error = exhausted([Refused(401, b'{"error":"bad key sk-123"}')])
    assert "sk-123" not in error.message
