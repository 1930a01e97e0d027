"""The simulated vLLM over real sockets, as the OpenAI SDK uses it."""

import json

import openai
import pytest

from backends.simulator.server import start_simulator
from tests.integration import simulated
from tests.integration.simulated import HELLO, WEATHER, spec

running, sdk = simulated.running, simulated.sdk


class TestSDK:
    async def test_chat_and_stream(self, sdk):
        answer = await sdk.chat.completions.create(model="phi-3-mini", messages=HELLO)
        assert answer.choices[0].message.content.startswith("[simulated")
        assert answer.model_extra["simulated"]["energy_joules"] > 0
        words, usage = [], None
        stream = await sdk.chat.completions.create(
            model="phi-3-mini",
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            words += [c.delta.content or "" for c in chunk.choices]
            usage = chunk.usage or usage
            last = chunk
        assert "".join(words) == answer.choices[0].message.content
        assert usage.completion_tokens == answer.usage.completion_tokens
        assert last.model_extra["simulated"]["seconds"] > 0

    async def test_tools_unary_streamed_and_after_the_result(self, sdk):
        ask = {"model": "phi-3-mini", "messages": HELLO, "tools": [WEATHER]}
        wanted = {"city": "simulated", "unit": "celsius", "days": 3}
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice, reason in (("auto", "tool_calls"), ("required", "tool_calls"), (named, "stop")):
            answer = await sdk.chat.completions.create(**ask, tool_choice=choice)
            call = answer.choices[0].message.tool_calls[0]
            assert (call.function.name, json.loads(call.function.arguments)) == (
                "get_weather",
                wanted,
            )
            assert answer.choices[0].finish_reason == reason
            names, arguments = [], ""
            async for chunk in await sdk.chat.completions.create(
                **ask, tool_choice=choice, stream=True
            ):
                for part in chunk.choices[0].delta.tool_calls or []:
                    names += [part.function.name] if part.function.name else []
                    arguments += part.function.arguments or ""
            assert (names, json.loads(arguments)) == (["get_weather"], wanted)
        none = await sdk.chat.completions.create(**ask, tool_choice="none")
        assert none.choices[0].message.content
        result = {"role": "tool", "tool_call_id": "x", "content": "sunny"}
        after = await sdk.chat.completions.create(**ask | {"messages": [*HELLO, result]})
        assert after.choices[0].message.content

    async def test_json_answers(self, sdk):
        ask = {"model": "phi-3-mini", "messages": HELLO}
        answer = await sdk.chat.completions.create(**ask, response_format={"type": "json_object"})
        assert json.loads(answer.choices[0].message.content)["simulated"] is True
        schema = {"name": "w", "schema": WEATHER["function"]["parameters"]}
        form = {"type": "json_schema", "json_schema": schema}
        answer = await sdk.chat.completions.create(**ask, response_format=form)
        assert json.loads(answer.choices[0].message.content)["unit"] == "celsius"

    async def test_logprobs(self, sdk):
        answer = await sdk.chat.completions.create(
            model="phi-3-mini", messages=HELLO, logprobs=True, top_logprobs=2, max_tokens=3
        )
        entries = answer.choices[0].logprobs.content
        assert len(entries) == 3
        assert all(e.logprob < 0 and len(e.top_logprobs) == 2 for e in entries)
        legacy = await sdk.completions.create(
            model="phi-3-mini", prompt="a", logprobs=1, max_tokens=3
        )
        assert legacy.choices[0].logprobs.text_offset[0] == 0
        assert len(legacy.choices[0].logprobs.tokens) == 3

    async def test_embeddings_and_models(self):
        async with (
            await start_simulator(spec(embeddings=True)) as server,
            openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client,
        ):
            answer = await client.embeddings.create(model="phi-3-mini", input=["a", "b", "a"])
            a, b, again = (entry.embedding for entry in answer.data)
            assert a == again != b
            plain = await client.embeddings.create(
                model="phi-3-mini", input="a", encoding_format="float"
            )
            assert plain.data[0].embedding == pytest.approx(a)
            assert [m.id async for m in client.models.list()] == ["phi-3-mini"]

    async def test_errors_map_to_the_sdks_own(self, sdk):
        with pytest.raises(openai.NotFoundError):
            await sdk.chat.completions.create(model="nope", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="Embeddings API"):
            await sdk.embeddings.create(model="phi-3-mini", input="a")
