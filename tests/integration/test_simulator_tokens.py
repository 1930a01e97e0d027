"""The simulated vLLM's endpoints around tokens, through the gateway, and echoed prompts."""

import json

import pytest

from tests.integration.harness import model

CHAT = {"model": "phi-3-mini", "messages": [{"role": "user", "content": "Hello there"}]}
GENERATE = "/inference/v1/generate"


@pytest.fixture
async def gate(world):
    capabilities = ("chat", "completions", "logprobs")
    return await world.gate(model("phi-3-mini", await world.simulator(), capabilities=capabilities))


async def test_conversations_in_a_batch_have_a_choice_each(gate):
    path = "/v1/chat/completions/batch"
    ask = {**CHAT, "messages": [CHAT["messages"], CHAT["messages"]], "max_tokens": 5}
    got = (await gate.ask(ask, path=path)).json
    one = (await gate.ask(CHAT | {"max_tokens": 5})).json
    assert [choice["index"] for choice in got["choices"]] == [0, 1]
    words = {choice["message"]["content"] for choice in (*got["choices"], *one["choices"])}
    assert len(words) == 1
    assert got["usage"]["prompt_tokens"] == 2 * one["usage"]["prompt_tokens"]
    for more in ({"stream": True}, {"n": 2}, {"messages": CHAT["messages"]}):
        assert (await gate.ask(ask | more, path=path)).status == 400


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/v1/chat/completions/render", CHAT | {"max_tokens": 4}),
        ("/v1/responses/render", {"model": "phi-3-mini", "input": "Hi", "max_output_tokens": 4}),
        ("/v1/messages/render", CHAT | {"max_tokens": 4}),
        ("/v1/completions/render", {"model": "phi-3-mini", "prompt": "Hi", "max_tokens": 4}),
        ("/cohere/v2/chat/render", CHAT | {"max_tokens": 4}),
    ],
)
async def test_what_is_rendered_is_generated_from_and_read_back(gate, path, ask):
    rendered = (await gate.ask(ask, path=path)).json
    rendered = rendered if isinstance(rendered, dict) else rendered[0]
    made = (await gate.ask({**rendered, "output_mode": "text"}, path=GENERATE)).json
    (choice,) = made["choices"]
    assert len(choice["token_ids"]) == made["usage"]["completion_tokens"] == 4
    assert made["usage"]["prompt_tokens"] == len(rendered["token_ids"])
    back = {"model": "phi-3-mini", "generate_response": made, "prompt_tokens": 7}
    read = (await gate.ask(back, path="/v1/chat/completions/derender")).json
    assert read["choices"][0]["message"]["content"].startswith("[simu")
    assert (read["choices"][0]["finish_reason"], read["usage"]["prompt_tokens"]) == ("length", 7)
    back = {"model": "phi-3-mini", "generate_responses": [made, made], "prompt_tokens": [7, 8]}
    read = (await gate.ask(back, path="/v1/completions/derender")).json
    assert [one["index"] for one in read["choices"]] == [0, 1]
    assert read["usage"]["prompt_tokens"] == 15


async def test_tokens_are_streamed(gate):
    ask = {"model": "phi-3-mini", "token_ids": [5, 6], "sampling_params": {"max_tokens": 3}}
    more = {"stream": True, "stream_options": {"include_usage": True}}
    got = await gate.ask(ask | more, path=GENERATE)
    *chunks, usage = [json.loads(event) for event in got.events if event != b"[DONE]"]
    whole = (await gate.ask(ask, path=GENERATE)).json["choices"][0]
    assert [i for chunk in chunks for i in chunk["choices"][0]["token_ids"]] == whole["token_ids"]
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 3
    assert got.events[-1] == b"[DONE]"


async def test_a_prompt_is_echoed_with_its_log_probabilities(gate):
    ids = (await gate.ask({"model": "phi-3-mini", "prompt": "Hello there"}, path="/tokenize")).json
    ask = {"model": "phi-3-mini", "prompt": [ids["tokens"]], "echo": True, "logprobs": 1}
    for limit in (0, 1, 3):
        got = (await gate.ask(ask | {"max_tokens": limit}, path="/v1/completions")).json
        (choice,) = got["choices"]
        told = choice["logprobs"]
        assert choice["text"].startswith("Hello there")
        assert "".join(told["tokens"]) == choice["text"]
        assert len(told["tokens"]) == len(ids["tokens"]) + limit
        assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
        assert all(chance < 0 for chance in told["token_logprobs"][1:])
        assert got["usage"]["completion_tokens"] == max(1, limit)


async def test_an_echoed_prompt_is_streamed_before_the_answer(gate):
    ask = {"model": "phi-3-mini", "prompt": "Hello there", "max_tokens": 3, "echo": True}
    whole = (await gate.ask(ask, path="/v1/completions")).json["choices"][0]["text"]
    got = await gate.ask(ask | {"stream": True, "logprobs": 1}, path="/v1/completions")
    chunks = [json.loads(event) for event in got.events if event != b"[DONE]"]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole
    tokens = [token for choice in choices for token in choice["logprobs"]["tokens"]]
    assert "".join(tokens) == whole
    offsets = [at for choice in choices for at in choice["logprobs"]["text_offset"]]
    assert offsets == sorted(offsets)
    assert offsets[-1] == len(whole) - len(tokens[-1])
