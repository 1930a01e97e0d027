"""Refusals in OpenAI's shape, whether the gateway's own or vLLM's."""

import json

import httpx
import openai
import pytest

HELLO = [{"role": "user", "content": "Hello"}]


def check(error, *words):
    """The SDK's error has OpenAI's four fields, `code` a string or null, and says what is wrong."""
    assert error.body.keys() == {"message", "type", "param", "code"}
    assert error.body["type"] == "invalid_request_error"
    assert error.code is None or isinstance(error.code, str)
    assert error.param is None or isinstance(error.param, str)
    for word in words:
        assert word in error.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asked", ["nope", "auto:nope", "microsoft/Phi-3-mini-4k-instruct"])
async def test_unknown_model(client, asked, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model=asked, messages=HELLO, stream=stream)
    check(caught.value, asked)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_more_than_the_context_by_the_gateway_s_count(client, stream):
    long = [{"role": "user", "content": "hello world " * 3000}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="falcon-7b", messages=long, stream=stream)
    check(caught.value)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_more_than_the_context_by_vllm_s_count(client, stream):
    # Under 2,048 for tiktoken, far over it for the tiny model's own vocabulary.
    long = [{"role": "user", "content": "internationalization " * 700}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="falcon-7b", messages=long, stream=stream)
    check(caught.value, "maximum context length is 2048")


async def test_a_prompt_too_long_for_some_goes_to_one_that_holds_it(client):
    long = [{"role": "user", "content": "hello world " * 3000}]
    answer = await client.chat.completions.create(model="auto:energy", messages=long, max_tokens=4)
    assert answer.model == "mistral-7b"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 3}, "top_p"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": []}, "empty conversation"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"response_format": {"type": "nope"}}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
async def test_bad_values(client, wrong, word):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="phi-3-mini", messages=HELLO, max_tokens=4, extra_body=wrong
        )
    check(caught.value)
    assert word in str(caught.value.body)


async def test_what_a_template_refuses_is_said(client):
    messages = [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "y"}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="falcon-7b", messages=messages, max_tokens=4)
    check(caught.value, "falcon-7b knows the roles")


async def test_tools_are_refused_by_a_model_without_them(client):
    # A concrete name bypasses the choice: vLLM's own refusal is what the client is told.
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="mistral-7b", messages=HELLO, tools=[tool])
    check(caught.value, "--tool-call-parser")


async def test_images_are_refused_where_no_model_takes_them(client):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What is it?"}]}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="auto", messages=messages)
    check(caught.value, "images")
    assert caught.value.code == "unsupported_capability"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="falcon-7b", messages=messages)
    check(caught.value)


@pytest.mark.parametrize("value", ["nan", "-1", "1_0", "inf", "x", ""])
async def test_a_malformed_weight_names_its_header(client, value):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="auto",
            messages=HELLO,
            max_tokens=4,
            extra_headers={"x-joulegate-weight-energy": value},
        )
    check(caught.value, "x-joulegate-weight-energy")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":',
        b"[]",
        b"\xff",
        b'{"model":"auto","messages":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"model":"auto","messages":[{"role":"user","content":"Hello"}],"temperature":NaN}',
    ],
)
async def test_bodies_that_are_not_json(gateway, body):
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{gateway.url}/v1/chat/completions",
            content=body,
            headers={"content-type": "application/json"},
        )
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"].keys() == {"message", "type", "param", "code"}


async def test_paths_that_do_not_exist(gateway):
    async with httpx.AsyncClient() as http:
        for method, path, status in (
            ("GET", "/v1/zork", 404),
            ("GET", "/v1/chat/completions", 405),
            ("GET", "/v1/models/zork", 404),
        ):
            answer = await http.request(method, gateway.url + path)
            assert answer.status_code == status
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
