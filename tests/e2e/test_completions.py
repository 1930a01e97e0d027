"""The older endpoint, and the one that chat models do not have."""

import openai
import pytest

from tests.e2e.fleet import FLEET


@pytest.mark.parametrize("asked", ["auto", *FLEET])
async def test_unary(client, asked):
    answer = await client.completions.create(
        model=asked, prompt="Once upon a time", max_tokens=5, extra_body={"ignore_eos": True}
    )
    assert answer.object == "text_completion"
    assert answer.model in FLEET if asked == "auto" else answer.model == asked
    assert answer.usage.completion_tokens == 5


async def test_stream_with_usage(client):
    stream = await client.completions.create(
        model="auto",
        prompt="Once upon a time",
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    *before, last = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in before)
    assert before[-1].choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == 5


async def test_stream_without_usage(client):
    stream = await client.completions.create(
        model="auto", prompt="Once", max_tokens=5, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_several_prompts_and_log_probabilities(client):
    answer = await client.completions.create(
        model="mistral-7b", prompt=["One", "Two"], max_tokens=3, logprobs=1, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith("One")
    assert answer.choices[1].logprobs.tokens


async def test_token_ids_as_the_prompt(client):
    answer = await client.completions.create(
        model="falcon-7b", prompt=[5, 6, 7], max_tokens=2, extra_body={"ignore_eos": True}
    )
    assert answer.usage.prompt_tokens == 3


@pytest.mark.parametrize("asked", ["auto", "auto:energy", "mistral-7b", "smollm2-135m"])
async def test_chat_models_refuse_embeddings(client, asked):
    with pytest.raises(openai.APIStatusError) as caught:
        await client.embeddings.create(model=asked, input="Hello")
    assert 400 <= caught.value.status_code < 500
    assert caught.value.body.keys() == {"message", "type", "param", "code"}
    assert "embeddings" in caught.value.message
