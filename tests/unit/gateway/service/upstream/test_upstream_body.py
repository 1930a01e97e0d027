"""What a backend is sent."""

import json

from gateway.service.request.body import decode_members, encode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
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
