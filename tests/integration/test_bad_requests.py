"""What no gateway should be sent: always a 4xx in OpenAI's shape, never a 500."""

import asyncio
import json

import aiohttp
import openai
import pytest

from gateway.config import LimitsConfig, TimeoutsConfig
from tests.integration.harness import CHAT, HELLO, model

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLEET = {
    "limits": LimitsConfig(max_body_bytes=1 << 20),
    # No refusal may be one that waited for the body's deadline.
    "timeouts": TimeoutsConfig(body_seconds=600),
}


def body(**fields):
    return json.dumps(CHAT | fields).encode()


def raw(name, text):
    """A body with a member whose JSON no encoder would write."""
    return body(**{name: "@"}).replace(b'"@"', text)


def nested(levels):
    """A body of so many levels, the outermost object included."""
    return raw("deep", b"[" * (levels - 1) + b"]" * (levels - 1))


HOSTILE = [
    b"",
    b" ",
    b"null",
    b"true",
    b"1",
    b'"text"',
    b"[]",
    b"[{}]",
    b"{",
    b"{}}",
    b'{"model"}',
    b'{"model":"auto"} trailing',
    b"\xff\xfe",
    b"\x00" * 1000,
    b"model=auto&messages=x",
    b"{'model': 'auto'}",
    body(user="@").replace(b"@", b"\xff"),
    body(user="@").replace(b"@", b"\xed\xa0\x80"),
    body(user="@").replace(b"@", b"\xc0\xaf"),
    raw("messages", b'[{"role":"user","content":"\\ud800"}]'),
    raw("model", b'"\\udfff"'),
    raw("temperature", b"NaN"),
    raw("temperature", b"Infinity"),
    raw("temperature", b"-Infinity"),
    raw("temperature", b"01"),
    raw("temperature", b"1."),
    nested(65),
    nested(100_000),
    raw("deep", b'{"a":' * 64 + b"1" + b"}" * 64),
    b"[" * 500_000,
    b'{"a":' * 150_000,
    raw("deep", b'["\\"[[[",' * 64 + b"1" + b"]" * 64),
    body() + b"]" * 70,
    body(model=1),
    body(model=["auto"]),
    body(model={}),
    body(model=True),
]
WRONG = [
    body(messages=None),
    body(messages="text"),
    body(messages=[]),
    body(messages={}),
    body(messages=[[]]),
    body(messages=["text"]),
    body(messages=[{}]),
    body(messages=[{"role": "user", "content": 1}]),
    body(messages=[{"role": ["user"], "content": "text"}]),
    body(messages=[{"role": {}, "content": "text"}]),
    body(messages=[{"role": "user", "content": [7]}]),
    body(stream={}),
    body(stream="perhaps"),
    body(stream=True, stream_options=[]),
    body(stream=True, stream_options="usage"),
    body(stream=True, stream_options={"include_usage": []}),
    body(max_tokens=0),
    body(max_tokens=-5),
    body(max_tokens=1.5),
    body(max_tokens="many"),
    body(max_completion_tokens=[]),
    body(max_completion_tokens=0),
    raw("max_tokens", b"1e999"),
    raw("max_tokens", b"9" * 30),
    raw("max_tokens", b"9" * 400),
    raw("max_tokens", b"9" * 5000),
    raw("max_completion_tokens", b"1" + b"0" * 100_000),
    json.dumps({"model": "auto"}).encode(),
    json.dumps({"model": "auto", "prompt": "text"}).encode(),
]
"""What the gateway cannot read, or does not look at: vLLM refuses it."""
LOOSE = [
    b"\xef\xbb\xbf" + body(),
    body().decode().encode("utf-16"),
    body(stream="true"),
    body(stream=1),
    body(stream=True, stream_options={"include_usage": 1}),
    body(max_tokens="10"),
    body(model=None),
    json.dumps({"messages": HELLO}).encode(),
]
"""Odd, and understood by vLLM."""


def check(got, status=400):
    assert got.status == status, (got.status, got.raw[:300])
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"]
    assert "x-should-retry" not in got.headers
    assert set(got.json) == {"error"}
    error = got.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert error["message"]
    assert len(got.raw) < 4000
    return error


@pytest.mark.parametrize("sent", HOSTILE, ids=lambda sent: repr(sent[-60:]))
async def test_a_hostile_body_is_a_400(gate, sent):
    check(await gate.ask(sent))
    check(await gate.ask(sent, path="/v1/route"))


@pytest.mark.parametrize("sent", WRONG, ids=lambda sent: repr(sent[-60:]))
async def test_what_is_wrong_is_vllms_to_refuse(gate, sent):
    got = await gate.ask(sent)
    check(got)
    assert got.headers["x-joulegate-attempts"] == "1"
    assert (await gate.ask(sent, path="/v1/route")).status == 200


@pytest.mark.parametrize("sent", LOOSE, ids=lambda sent: repr(sent[-60:]))
async def test_what_vllm_takes_is_served(gate, sent):
    got = await gate.ask(sent)
    assert (got.status, got.error) == (200, None), got.raw
    streamed = b'"stream": ' in sent
    assert got.raw.endswith(b"data: [DONE]\n\n") is streamed


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat/completions", {"model": 5}, "model"),
        ("chat/completions", {"messages": 5}, "messages"),
        ("chat/completions", {"stream": 5}, "stream"),
        ("chat/completions", {"stream": True, "stream_options": 5}, "stream_options"),
        ("chat/completions", {"max_tokens": "many"}, "max_tokens"),
        ("chat/completions", {"max_completion_tokens": "many"}, "max_completion_tokens"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": 5}, "prompt"),
        ("completions", {"prompt": None}, "prompt"),
        ("completions", {"prompt": {}}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": ["a", 1]}, "prompt"),
        ("completions", {"prompt": [1.5]}, "prompt"),
    ],
)
async def test_a_wrong_member_is_named(gate, path, fields, param):
    error = check(await gate.ask(CHAT | fields, path=f"/v1/{path}"))
    assert error["param"] == param
    assert param in error["message"]


async def test_sixty_four_levels_pass(gate):
    for good in (
        nested(64),
        raw("deep", b'{"a":' * 63 + b"1" + b"}" * 63),
        body(deep=["[{" * 5000, '"[[[' * 100, "\\" * 99]),
        body(deep=[[[]], [[]]] * 500),
    ):
        assert (await gate.ask(good)).status == 200


async def test_too_large_by_its_length_and_as_it_comes(gate):
    large = body(user="x" * (1 << 20))
    error = check(await gate.ask(large), 413)
    assert error["code"] == "request_too_large"

    async def pieces(count):
        for _ in range(count):
            yield b"x" * (1 << 16)

    timeout = aiohttp.ClientTimeout(total=20)
    for count in (17, 40):
        data = pieces(count)
        async with gate.http.post("/v1/chat/completions", data=data, timeout=timeout) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "request_too_large"
    exact = body(user="")
    exact = body(user="x" * ((1 << 20) - len(exact)))
    assert len(exact) == 1 << 20
    # It fits the limit; that it is not too large is all that is asked.
    assert (await gate.ask(exact)).status == 200
    assert (await gate.ask()).status == 200


async def test_codings_that_are_not_understood_are_refused(gate):
    for encoding in ("br", "gzip, identity"):
        error = check(await gate.ask(body(), {"content-encoding": encoding}), 415)
        assert error["code"] == "unsupported_content_encoding"
    assert (await gate.ask(body(), {"content-encoding": "identity"})).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("POST", "/chat/completions", 404, "not_found"),
        ("GET", "/v1/%2e%2e/health/x", 404, "not_found"),
        ("GET", "/v1/requests/unknown", 404, "request_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/embeddings", 405, "method_not_allowed"),
        ("GET", "/v1/route", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
async def test_wrong_paths_and_methods(gate, method, path, status, code):
    got = await gate.ask(None, path=path, method=method)
    assert got.status == status, got.raw
    assert got.headers["content-type"].startswith("application/json")
    error = got.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


async def test_the_sdk_raises_the_class_that_fits(gate):
    async with gate.sdk() as sdk:

        async def create(**fields):
            await sdk.chat.completions.create(**{"model": "auto", "messages": HELLO} | fields)

        with pytest.raises(openai.NotFoundError) as caught:
            await create(model="nope")
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as caught:
            await create(messages=[])
        assert caught.value.param == "messages"
        with pytest.raises(openai.BadRequestError) as caught:
            await create(extra_headers={"x-joulegate-weight-energy": "nan"})
        assert caught.value.param == "x-joulegate-weight-energy"
        assert "x-joulegate-weight-energy" in caught.value.message
        with pytest.raises(openai.BadRequestError) as caught:
            await create(stream=True, max_tokens=0)
        assert caught.value.request_id
        with pytest.raises(openai.APIStatusError) as caught:
            await create(user="x" * (1 << 20))
        assert caught.value.status_code == 413
        with pytest.raises(openai.NotFoundError):
            await sdk.files.list()


@pytest.mark.asyncio(loop_scope="function")
async def test_a_body_that_does_not_come_is_not_waited_for(world):
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()), timeouts=TimeoutsConfig(body_seconds=0.3)
    )

    async def never():
        yield b'{"model":'
        await asyncio.get_running_loop().create_future()

    timeout = aiohttp.ClientTimeout(total=20)
    async with gate.http.post("/v1/chat/completions", data=never(), timeout=timeout) as response:
        assert response.status == 408
        assert (await response.json())["error"]["code"] == "request_timeout"
    assert gate.idle
