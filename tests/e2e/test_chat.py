"""Chat through the gateway with OpenAI's Python SDK, answered by real vLLM."""

import json

import httpx
import pytest

from tests.e2e.fleet import FLEET

HELLO = [{"role": "user", "content": "Hello"}]
PRESETS = ["auto:accuracy", "auto:energy", "auto:time", "auto:balanced", "auto:eco"]
ASKED = ["auto", "joulegate/auto", *PRESETS, *FLEET]
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "size": {"enum": ["small", "large"]}},
    "required": ["colour", "size"],
    "additionalProperties": False,
}


async def collect(stream):
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("asked", ASKED)
async def test_unary(client, asked):
    raw = await client.chat.completions.with_raw_response.create(
        model=asked, messages=HELLO, max_tokens=8, extra_body={"ignore_eos": True}
    )
    answer = raw.parse()
    assert answer.model in FLEET
    assert answer.model == raw.headers["x-joulegate-model"]
    if asked in FLEET:
        assert answer.model == asked
    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


@pytest.mark.parametrize("asked", ASKED)
async def test_stream(client, asked):
    stream = await client.chat.completions.create(
        model=asked, messages=HELLO, max_tokens=8, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = await collect(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    (model,) = {chunk.model for chunk in chunks}
    assert model in FLEET
    if asked in FLEET:
        assert model == asked
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert "".join(c.choices[0].delta.content or "" for c in chunks)
    # The gateway asks vLLM for usage; a client that did not ask must not see it.
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("asked", ["auto", *FLEET])
async def test_streamed_usage_when_asked_for(client, asked):
    stream = await client.chat.completions.create(
        model=asked,
        messages=HELLO,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    *before, last = await collect(stream)
    assert all(chunk.usage is None for chunk in before)
    assert last.choices == []
    assert last.usage.completion_tokens == 8
    assert last.usage.total_tokens == last.usage.prompt_tokens + 8


async def test_usage_in_every_chunk_is_passed_on(client):
    stream = await client.chat.completions.create(
        model="phi-3-mini",
        messages=HELLO,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        extra_body={"ignore_eos": True},
    )
    counts = [chunk.usage.completion_tokens for chunk in await collect(stream)]
    assert counts == sorted(counts)
    assert counts[-1] == 8


async def test_the_stream_on_the_wire(gateway):
    body = {"model": "auto", "messages": HELLO, "max_tokens": 4, "stream": True, "ignore_eos": True}
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{gateway.url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    assert all(event.startswith("data: {") for event in events)
    assert '"usage"' not in answer.text


async def test_many_choices(client):
    answer = await client.chat.completions.create(
        model="auto", messages=HELLO, n=2, max_tokens=4, extra_body={"ignore_eos": True}
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.completion_tokens == 8

    stream = await client.chat.completions.create(
        model="auto",
        messages=HELLO,
        n=2,
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = await collect(stream)
    finished = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
    assert sorted(finished) == [0, 1]
    assert chunks[-1].usage.completion_tokens == 8


async def test_log_probabilities(client):
    answer = await client.chat.completions.create(
        model="auto", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) >= 2 and token.logprob <= 0 for token in tokens)


@pytest.mark.parametrize("asked", ["auto", "falcon-7b"])
async def test_json_schema(client, asked):
    answer = await client.chat.completions.create(
        model=asked,
        messages=HELLO,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    )
    made = json.loads(answer.choices[0].message.content)
    assert made.keys() == {"colour", "size"}
    assert made["colour"] in {"red", "blue"}


async def test_fields_of_vllm_reach_it(client):
    async def ask(**extra):
        answer = await client.chat.completions.create(
            model="mistral-7b", messages=HELLO, max_tokens=12, extra_body=extra
        )
        return answer.choices[0].message.content, answer.usage.completion_tokens

    assert (await ask(min_tokens=12))[1] == 12
    assert (await ask(structured_outputs={"choice": ["yes", "no"]}))[0] in {"yes", "no"}
    first = await ask(seed=3, top_k=50, repetition_penalty=1.2, ignore_eos=True)
    assert first == await ask(seed=3, top_k=50, repetition_penalty=1.2, ignore_eos=True)


async def test_fields_that_only_vllm_fills_come_back(client):
    answer = await client.chat.completions.create(
        model="mistral-7b", messages=HELLO, max_tokens=4, extra_body={"return_token_ids": True}
    )
    assert len(answer.model_extra["prompt_token_ids"]) == answer.usage.prompt_tokens
    assert answer.model_extra["metrics"]["time_to_first_token_ms"] > 0


async def test_the_recipe_s_falcon_template_is_used(client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    answer = await client.chat.completions.create(
        model="falcon-7b",
        messages=messages,
        max_tokens=1,
        extra_body={"return_prompt_text": True},
    )
    assert answer.model_extra["prompt_text"] == (
        "Be brief.\n\nUser: Hi\nAssistant: Hello.<|endoftext|>\nUser: Bye\nAssistant:"
    )
