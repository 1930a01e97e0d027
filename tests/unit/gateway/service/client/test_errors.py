"""Every error in OpenAI's shape, and vLLM's own refusals brought into it."""

import json

import pytest

from gateway.service.client import errors
from gateway.service.client.api_error import ApiError
from gateway.service.client.errors import UpstreamRejection


def family(kind):
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


OWN = sorted(set(family(ApiError)) - {UpstreamRejection}, key=lambda kind: kind.__name__)
TABLE = {
    "ApiError": (500, "server_error", "internal_error"),
    "BadRequest": (400, "invalid_request_error", None),
    "MethodNotAllowed": (405, "invalid_request_error", "method_not_allowed"),
    "InvalidApiKey": (401, "invalid_request_error", "invalid_api_key"),
    "MissingToken": (401, "authentication_error", "invalid_token"),
    "ModelNotAllowed": (403, "invalid_request_error", "model_not_allowed"),
    "NotFound": (404, "invalid_request_error", "not_found"),
    "UnknownResponse": (404, "invalid_request_error", "response_not_found"),
    "EndpointNotServed": (404, "invalid_request_error", "endpoint_not_served"),
    "NotOffered": (403, "invalid_request_error", "not_offered"),
    "UnknownModel": (404, "invalid_request_error", "model_not_found"),
    "TooLarge": (413, "invalid_request_error", "request_too_large"),
    "HeadTooLarge": (431, "invalid_request_error", "headers_too_large"),
    "UnsupportedEncoding": (415, "invalid_request_error", "unsupported_content_encoding"),
    "BodyTimeout": (408, "invalid_request_error", "request_timeout"),
    "UnsupportedCapability": (400, "invalid_request_error", "unsupported_capability"),
    "ContextExceeded": (400, "invalid_request_error", "context_length_exceeded"),
    "NoFeasibleModel": (422, "invalid_request_error", "no_feasible_model"),
    "BackendsUnavailable": (503, "server_error", "no_backend_available"),
    "NoServerThere": (503, "server_error", "backends_failed"),
    "GatewayDraining": (503, "server_error", "draining"),
    "OverCapacity": (503, "server_error", "over_capacity"),
    "GatewayBusy": (429, "rate_limit_error", "gateway_busy"),
    "BackendsRateLimited": (429, "rate_limit_error", "rate_limited"),
    "RateLimitReached": (429, "requests", "rate_limit_exceeded"),
    "BudgetExceeded": (429, "insufficient_quota", "budget_exceeded"),
    "KeyStoreUnavailable": (503, "server_error", "key_store_unavailable"),
    "BadGateway": (502, "server_error", "bad_gateway"),
    "GatewayTimeout": (504, "server_error", "upstream_timeout"),
    "StreamInterrupted": (502, "server_error", "stream_interrupted"),
}

_AGAIN = {
    "GatewayBusy", "GatewayDraining", "OverCapacity", "RateLimitReached", "KeyStoreUnavailable",
}  # fmt: skip


def shown(error):
    body = json.loads(error.encode_json())
    assert body.keys() == {"error"}
    inner = body["error"]
    assert list(inner) == ["message", "type", "param", "code"]
    assert isinstance(inner["message"], str)
    assert isinstance(inner["type"], str)
    assert isinstance(inner["param"], str | None)
    assert isinstance(inner["code"], str | None)
    return inner


def test_the_table_has_every_error():
    assert [kind.__name__ for kind in OWN] == sorted(TABLE)
    drawn = errors.__doc__
    for name in (*TABLE, "UpstreamRejection"):
        assert name in drawn


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_each_error_is_openais_object(kind):
    status, type_, code = TABLE[kind.__name__]
    error = kind('what "happened"\n')
    inner = shown(error)
    assert (error.status, inner["type"], inner["code"]) == (status, type_, code)
    assert inner["message"] == 'what "happened"\n'
    assert str(error) == 'what "happened"\n'
    named = {"UnknownModel": "model", "ModelNotAllowed": "model", "ContextExceeded": "messages"}
    param = named.get(kind.__name__)
    assert inner["param"] == param


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_param_and_code_may_be_given(kind):
    inner = shown(kind("m", param="x-joulegate-policy", code="special"))
    assert (inner["param"], inner["code"]) == ("x-joulegate-policy", "special")
    # … for this one only
    assert shown(kind("m"))["code"] == TABLE[kind.__name__][2]


@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_an_sdk_is_told_not_to_multiply_our_retries(kind):
    error = kind("m", retry_after_seconds=7)
    headers = dict(error.build_headers())
    assert headers[b"retry-after"] == b"7"
    # Another replica may answer what one that stops or is full cannot.
    again = kind.__name__ in _AGAIN
    spent = TABLE[kind.__name__][0] >= 429 and not again
    assert headers.get(b"x-should-retry") == (b"false" if spent else None)
    assert b"retry-after" not in dict(kind("m").build_headers())


# Bodies of a real vLLM 0.32, as they came.
UNKNOWN = (
    b'{"error":{"message":"The model `nope` does not exist. Valid aliases: phi-3-mini.",'
    b'"type":"NotFoundError","param":"model","code":404}}'
)
MAX_TOKENS = (
    b'{"error":{"message":"max_tokens=5000 cannot be greater than max_model_len=4096. Please '
    b'request fewer output tokens. (parameter=max_tokens, value=5000)","type":"BadRequestError",'
    b'"param":"max_tokens","code":400}}'
)
TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 4096 tokens. However, your '
    b"prompt contains at least 4097 input tokens, which exceeds this limit even without any "
    b"output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, "
    b'value=4097)","type":"BadRequestError","param":"input_tokens","code":400}}'
)
BAD_TYPE = (
    b"{\"error\":{\"message\":\"1 validation error:\\n  {'type': 'list_type', 'loc': "
    b"'body.messages', 'msg': 'Input should be a valid list', 'input': 'x'}\","
    b'"type":"Bad Request","param":"body.messages","code":400}}'
)
NO_PARSER = (
    b'{"error":{"message":"\\"auto\\" tool choice requires --enable-auto-tool-choice and '
    b'--tool-call-parser to be set","type":"BadRequestError","param":null,"code":400}}'
)
EMPTY = (
    b'{"error":{"message":"Cannot apply chat template to an empty conversation. Provide at least '
    b'one message.","type":"BadRequestError","param":null,"code":400}}'
)


@pytest.mark.parametrize(
    ("status", "body", "param", "code", "begins"),
    [
        (404, UNKNOWN, "model", "model_not_found", "The model `nope` does not exist."),
        (400, MAX_TOKENS, "max_tokens", None, "max_tokens=5000 cannot be greater"),
        (
            400,
            MAX_TOKENS.replace(b"max_tokens", b"max_completion_tokens"),
            "max_completion_tokens",
            None,
            "max_completion_tokens=5000 cannot be greater",
        ),
        (400, TOO_LONG, "input_tokens", "context_length_exceeded", "This model's maximum context"),
        (400, BAD_TYPE, "messages", None, "1 validation error:\n  {'type': 'list_type'"),
        (400, NO_PARSER, None, None, '"auto" tool choice requires'),
        (400, EMPTY, None, None, "Cannot apply chat template"),
    ],
)
def test_vllms_refusals_are_openais(status, body, param, code, begins):
    error = UpstreamRejection(status, body)
    inner = shown(error)
    assert error.status == status
    assert inner["type"] == "invalid_request_error"
    assert (inner["param"], inner["code"]) == (param, code)
    assert inner["message"].startswith(begins)
    assert inner["message"] == json.loads(body)["error"]["message"]
    assert error.build_headers() == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"detail":"Not Found"}', "Not Found"),
        (405, b'{"detail":"Method Not Allowed"}', "Method Not Allowed"),
        (400, b'{"object":"error","message":"old shape","code":400}', "old shape"),
        (400, b'{"error":"a word"}', "a word"),
        (422, b"<html>no</html>", "<html>no</html>"),
        (400, b"", "the backend refused the request"),
        (400, b"{}", "the backend refused the request"),
        (400, b'{"error":{}}', "the backend refused the request"),
        (400, b'{"error":{"message":null}}', "the backend refused the request"),
        (400, b'{"error":{"message":"m","param":["a"]}}', "m"),
        (400, b"\xff\xfe", "\ufffd\ufffd"),
        (400, b'{"error":{"message":"\xff"}}', '{"error":{"message":"\ufffd"}}'),
    ],
)
def test_other_shapes_of_refusal(status, body, message):
    error = UpstreamRejection(status, body)
    inner = shown(error)
    assert (error.status, inner["message"], inner["param"]) == (status, message, None)


def test_a_list_of_validation_errors_becomes_text():
    detail = [{"loc": ["body", "model"], "msg": "field required", "type": "missing"}]
    inner = shown(UpstreamRejection(422, json.dumps({"detail": detail}).encode()))
    assert "field required" in inner["message"]


def test_a_path_that_vllm_does_not_have_is_no_missing_model():
    # `{"detail": …}` is the router's 404: nothing was looked up by name.
    assert shown(UpstreamRejection(404, b'{"detail":"Not Found"}'))["code"] != "model_not_found"


@pytest.mark.parametrize(
    "body", [b"x" * 100_000, b"[" * 100_000, b'{"error":[1]}', b'{"error":{"message":[1]}}', b"[]"]
)
def test_nonsense_is_shown_in_part(body):
    assert 0 < len(shown(UpstreamRejection(400, body))["message"]) <= 500
