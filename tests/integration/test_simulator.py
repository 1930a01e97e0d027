"""The simulated vLLM over real sockets: with aiohttp for the bytes, with the OpenAI SDK for use."""

import asyncio
import json
import re

import aiohttp
import openai
import pytest

from backends.simulator import tokens
from backends.simulator.answers import Spec
from backends.simulator.faults import KINDS
from backends.simulator.server import start
from backends.simulator.truth import Cost, Truth

TRUTH = Truth(
    seconds=Cost("additive", (0.02, 0.001, 0.02)),
    joules=Cost("additive", (40.0, 0.3, 5.0)),
    output=(0.0, 30.0),
    output_sd=0.0,
    context=512,
)
SPEC = Spec(model="phi-3-mini", truth=TRUTH, speed=200.0, seed=3)
HELLO = [{"role": "user", "content": "Hello there"}]
CHAT = {"model": "phi-3-mini", "messages": HELLO}
WRONG_TOOL = json.dumps(
    CHAT | {"tools": [{"function": {"name": "f"}}], "tool_choice": {"function": "f"}}
)
WRONG_SCHEMA = json.dumps(
    CHAT | {"structured_outputs": {"json": {"type": "array", "minItems": "x"}}}
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "default": 3},
                "note": {"type": "string"},
            },
            "required": ["city", "unit", "days"],
        },
    },
}


def spec(**fields):
    return Spec(**{f: getattr(SPEC, f) for f in SPEC.__slots__} | fields)


@pytest.fixture
async def running():
    async with await start(SPEC) as server:
        yield server


@pytest.fixture
async def http(running):
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(running.url, timeout=timeout) as session:
        yield session


@pytest.fixture
async def sdk(running):
    async with openai.AsyncOpenAI(
        base_url=running.url + "/v1", api_key="none", max_retries=0, timeout=20
    ) as client:
        yield client


async def until(condition):
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what brings it about has no event
            await asyncio.sleep(0.005)


async def events(response):
    """The data of each event of a stream, to its end."""
    raw = await response.read()
    return [part.removeprefix(b"data: ") for part in raw.split(b"\n\n") if part]


def contents(chunks):
    return [
        c["choices"][0]["delta"]["content"]
        for c in chunks
        if c["choices"] and "role" not in c["choices"][0]["delta"]
    ]


async def metric(http, name, **labels):
    text = await (await http.get("/metrics")).text()
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"{name} {labels} is not in the metrics")


class TestAnswers:
    async def test_unary_chat_has_vllms_shape_and_says_it_is_simulated(self, http, running):
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            body = await response.json()
        assert response.status == 200
        assert response.headers["x-simulated"] == "true"
        choice = body["choices"][0]
        assert body["object"] == "chat.completion"
        assert body["id"].startswith("chatcmpl-")
        assert choice["message"]["content"].startswith("[simulated phi-3-mini]")
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
        usage = body["usage"]
        assert usage["completion_tokens"] == 30
        assert usage["total_tokens"] == usage["prompt_tokens"] + 30
        assert usage["prompt_tokens_details"] is None
        assert body["system_fingerprint"] == "simulated"
        i = usage["prompt_tokens"]
        assert body["simulated"]["energy_joules"] == pytest.approx(TRUTH.total_joules(i, 30))
        assert body["simulated"]["seconds"] == pytest.approx(TRUTH.total_seconds(i, 30))
        assert body["simulated"]["speed"] == 200.0
        assert running.engine.running == 0

    async def test_a_stream_is_one_compact_chunk_per_token(self, http):
        body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
        async with http.post("/v1/chat/completions", json=body) as response:
            assert response.content_type == "text/event-stream"
            parts = await events(response)
        assert parts[-1] == b"[DONE]"
        assert all(b'": ' not in part and b', "' not in part for part in parts)
        chunks = [json.loads(part) for part in parts[:-1]]
        assert {c["id"] for c in chunks} == {chunks[0]["id"]}
        assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
        first, *content, usage = chunks
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert len(content) == 30
        assert [c["choices"][0]["finish_reason"] for c in content] == [None] * 29 + ["stop"]
        assert usage["choices"] == []
        assert usage["usage"]["completion_tokens"] == 30
        assert usage["simulated"]["energy_joules"] > 0
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            unary = await response.json()
        assert unary["choices"][0]["message"]["content"] == "".join(contents(content))

    async def test_without_include_usage_there_is_no_usage_chunk(self, http):
        async with http.post("/v1/chat/completions", json=CHAT | {"stream": True}) as response:
            parts = await events(response)
        assert not any(b'"usage"' in part for part in parts)
        assert len(parts) == 1 + 30 + 1

    async def test_continuous_usage_counts_up(self, http):
        options = {"include_usage": True, "continuous_usage_stats": True}
        body = CHAT | {"stream": True, "stream_options": options, "n": 2}
        async with http.post("/v1/chat/completions", json=body) as response:
            chunks = [json.loads(part) for part in (await events(response))[:-1]]
        for index in (0, 1):
            own = [c for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
            assert [c["usage"]["completion_tokens"] for c in own] == list(range(31))
        assert chunks[-1]["usage"]["completion_tokens"] == 60

    async def test_limits(self, http):
        async def ask(**fields):
            async with http.post("/v1/chat/completions", json=CHAT | fields) as response:
                body = await response.json()
                return body["usage"]["completion_tokens"], body["choices"][0]

        count, choice = await ask(max_tokens=7)
        assert (count, choice["finish_reason"]) == (7, "length")
        count, choice = await ask(max_completion_tokens=5, max_tokens=9)
        assert (count, choice["finish_reason"]) == (5, "length")
        count, choice = await ask(max_tokens=60, ignore_eos=True)
        assert (count, choice["finish_reason"]) == (60, "length")
        count, choice = await ask(min_tokens=50)
        assert (count, choice["finish_reason"]) == (50, "stop")
        _, choice = await ask(stop=["mini]"])
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "mini]")
        assert choice["message"]["content"] == "[simulated phi-3-"

    async def test_completions_take_texts_and_token_ids(self, http):
        base = {"model": "phi-3-mini", "max_tokens": 4}
        for prompt, choices in (("a b", 1), (["a", "b c"], 2), ([1, 2, 3], 1), ([[1], [2]], 2)):
            body = base | {"prompt": prompt}
            async with http.post("/v1/completions", json=body) as response:
                answer = await response.json()
            assert [c["index"] for c in answer["choices"]] == list(range(choices))
            assert answer["usage"]["completion_tokens"] == 4 * choices
            stream = body | {"stream": True, "stream_options": {"include_usage": True}}
            async with http.post("/v1/completions", json=stream) as response:
                parts = await events(response)
            chunks = [json.loads(part) for part in parts[:-1]]
            for choice in answer["choices"]:
                own = [c["choices"][0] for c in chunks if c["choices"]]
                words = [c["text"] for c in own if c["index"] == choice["index"]]
                assert "".join(words) == choice["text"]
            assert chunks[-1]["usage"] == {
                k: v for k, v in answer["usage"].items() if v is not None
            }

    async def test_embeddings_are_refused_by_a_chat_model(self, http):
        body = {"model": "phi-3-mini", "input": "a"}
        async with http.post("/v1/embeddings", json=body) as response:
            assert response.status == 400
            assert (await response.json())["error"] == {
                "message": "The model does not support Embeddings API",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }

    async def test_per_request_metrics_and_cached_tokens_when_switched_on(self):
        flags = spec(per_request_metrics=True, prompt_tokens_details=True)
        async with (
            await start(flags) as server,
            aiohttp.ClientSession(server.url) as session,
            session.post("/v1/chat/completions", json=CHAT) as response,
        ):
            body = await response.json()
        assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        metrics = body["metrics"]
        assert set(metrics) == {"time_to_first_token_ms", "generation_time_ms", "queue_time_ms"}
        total = metrics["time_to_first_token_ms"] + metrics["generation_time_ms"]
        assert total == pytest.approx(body["simulated"]["seconds"] * 1000 / 200)

    async def test_tokenize_counts_as_usage_does_and_detokenize_inverts(self, http):
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            prompt_tokens = (await response.json())["usage"]["prompt_tokens"]
        async with http.post("/tokenize", json={"messages": HELLO}) as response:
            assert (await response.json())["count"] == prompt_tokens
        text = "Grüße, 世界! two  spaces\n\tand a_longer_identifier 🙂"
        async with http.post("/tokenize", json={"prompt": text}) as response:
            body = await response.json()
        assert body["count"] == len(body["tokens"])
        assert max(body["tokens"]) < 2**53
        async with http.post("/detokenize", json={"tokens": body["tokens"]}) as response:
            assert (await response.json())["prompt"] == text

    async def test_small_endpoints(self, http, running):
        async with http.get("/v1/models") as response:
            card = (await response.json())["data"][0]
        assert (card["id"], card["max_model_len"]) == ("phi-3-mini", 512)
        async with http.get("/health") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with http.get("/version") as response:
            assert "simulated" in (await response.json())["version"]
        async with http.get("/simulator/energy") as response:
            energy = await response.json()
        assert 0 < energy["idle_microjoules"] <= energy["microjoules"]
        assert energy["microjoules"] <= running.engine.microjoules

    async def test_metrics_have_vllms_names_and_add_up(self, http):
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            usage = (await response.json())["usage"]
        async with http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 2}) as response:
            await response.read()
        assert await metric(http, "vllm:num_requests_running", model_name="phi-3-mini") == 0
        assert await metric(http, "vllm:num_requests_waiting") == 0
        assert await metric(http, "vllm:kv_cache_usage_perc") == 0
        assert await metric(http, "vllm:prompt_tokens_total") == 2 * usage["prompt_tokens"]
        local = await metric(http, "vllm:prompt_tokens_by_source_total", source="local_compute")
        assert local == 2 * usage["prompt_tokens"]
        assert await metric(http, "vllm:generation_tokens_total") == 32
        for reason, count in (("stop", 1), ("length", 1), ("abort", 0)):
            got = await metric(http, "vllm:request_success_total", finished_reason=reason)
            assert got == count
        assert await metric(http, "vllm:time_to_first_token_seconds_count") == 2
        assert await metric(http, "vllm:e2e_request_latency_seconds_bucket", le="+Inf") == 2
        assert await metric(http, "simulator_energy_joules_total") > 0

    async def test_a_batch_costs_each_less_than_it_would_alone(self, http):
        async def ask():
            async with http.post("/v1/chat/completions", json=CHAT) as response:
                body = await response.json()
                return body["simulated"]["energy_joules"]

        alone = await ask()
        together = await asyncio.gather(*(ask() for _ in range(16)))
        assert sum(together) / 16 < 0.8 * alone


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "body", "status", "kind", "words"),
        [
            ("chat/completions", b"{", 400, "BadRequestError", "JSON decode error"),
            ("chat/completions", b'{"messages":"\xff"}', 400, "BadRequestError", ""),
            ("chat/completions", b"{}", 400, "BadRequestError", "messages"),
            ("chat/completions", b'{"messages":[]}', 400, "BadRequestError", "messages"),
            ("chat/completions", b'{"messages":[{"role":1}]}', 400, "BadRequestError", "role"),
            ("chat/completions", b"[" * 5000, 400, "BadRequestError", ""),
            ("completions", b'{"prompt":[]}', 400, "BadRequestError", "empty"),
            ("completions", b'{"prompt":"a","max_tokens":0}', 400, "BadRequestError", "at least 1"),
            ("completions", b'{"prompt":"a","n":0}', 400, "BadRequestError", "$.n"),
            ("completions", b'{"prompt":"a","n":1000}', 400, "BadRequestError", "$.n"),
            ("completions", b'{"prompt":"a","min_tokens":-1}', 400, "BadRequestError", "min_t"),
            ("completions", b'{"prompt":"a","logprobs":21}', 400, "BadRequestError", "logprobs"),
            ("completions", b'{"prompt":["a",1]}', 400, "BadRequestError", "mix"),
            ("chat/completions", WRONG_TOOL, 400, "BadRequestError", "tool"),
            ("chat/completions", WRONG_SCHEMA, 400, "BadRequestError", "schema"),
            ("completions", b'{"prompt":"a","model":"x"}', 404, "NotFoundError", "`x` does not"),
            ("completions", b'{"prompt":"a","max_tokens":512}', 400, "BadRequestError",
             "maximum context length is 512 tokens. However, you requested 512 output"),
            ("completions", b'{"prompt":"' + b"word " * 600 + b'"}', 400, "BadRequestError",
             "maximum context length is 512 tokens. However, your request has"),
            ("nowhere", b"{}", 404, "NotFoundError", "Not Found"),
        ],
    )  # fmt: skip
    async def test_errors_have_vllms_shape(self, http, path, body, status, kind, words):
        async with http.post(f"/v1/{path}", data=body) as response:
            answer = await response.json()
        assert response.status == status
        assert response.headers["x-simulated"] == "true"
        error = answer["error"]
        assert (error["type"], error["code"]) == (kind, status)
        assert words in error["message"]

    async def test_a_key_is_asked_for_under_v1_only(self):
        async with (
            await start(spec(api_key="s3cret")) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            async with session.get("/v1/models") as response:
                assert (response.status, await response.json()) == (401, {"error": "Unauthorized"})
            headers = {"authorization": "Bearer s3cret"}
            async with session.get("/v1/models", headers=headers) as response:
                assert response.status == 200
            async with session.get("/health") as response:
                assert response.status == 200

    async def test_auto_tools_need_a_server_that_has_them(self):
        async with (
            await start(spec(tools=False)) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            body = CHAT | {"tools": [WEATHER]}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 400
                assert "--enable-auto-tool-choice" in (await response.text())


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
            await start(spec(embeddings=True)) as server,
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


async def test_the_same_seed_gives_the_same_answer_on_another_server(http):
    async def ask(session, words):
        body = CHAT | {"messages": [{"role": "user", "content": words}]}
        async with session.post("/v1/chat/completions", json=body) as response:
            return (await response.json())["choices"][0]["message"]["content"]

    async with await start(SPEC) as twin, aiohttp.ClientSession(twin.url) as session:
        assert await ask(session, "one") == await ask(http, "one") != await ask(http, "two")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_aborts_its_request(stream):
    slow = spec(speed=1.0)
    async with await start(slow) as server, aiohttp.ClientSession(server.url) as session:
        body = CHAT | {"stream": stream, "max_tokens": 400, "ignore_eos": True}
        task = asyncio.ensure_future(session.post("/v1/chat/completions", json=body))
        await until(lambda: server.engine.running == 1)
        if stream:
            (await task).close()
        else:
            task.cancel()
        await until(lambda: server.engine.running == 0)
        got = await metric(session, "vllm:request_success_total", finished_reason="abort")
        assert got == 1
        await asyncio.gather(task, return_exceptions=True)


async def test_close_cuts_what_is_in_flight():
    server = await start(spec(speed=1.0))
    async with aiohttp.ClientSession(server.url) as session:
        body = CHAT | {"max_tokens": 400, "ignore_eos": True}
        task = asyncio.ensure_future(session.post("/v1/chat/completions", json=body))
        await until(lambda: server.engine.running == 1)
        await server.close()
        await server.close()
        with pytest.raises(aiohttp.ClientError):
            await task


class TestFaults:
    stream = CHAT | {"stream": True, "stream_options": {"include_usage": True}}

    async def test_every_fault_says_what_it_does(self):
        assert all(len(text) > 10 for text in KINDS.values())

    async def test_status_count_and_healing(self, http, running):
        running.faults.set("status", status=503, retry_after="7", count=2)
        for _ in range(2):
            async with http.post("/v1/chat/completions", json=CHAT) as response:
                assert (response.status, response.headers["retry-after"]) == (503, "7")
                assert (await response.json())["error"]["code"] == 503
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
        assert running.faults.served["status"] == 2
        running.faults.set("status", status=502, html=True)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, response.content_type) == (502, "text/html")
        running.faults.set("status", status=400, body={"detail": "no"})
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, await response.json()) == (400, {"detail": "no"})

    async def test_over_http(self, http, running):
        faults = {"status": {"status": 429, "count": 3}, "unhealthy": {}}
        async with http.put("/simulator/faults", json=faults) as response:
            assert response.status == 200
        async with http.get("/health") as response:
            assert response.status == 503
        async with http.get("/simulator/faults") as response:
            state = await response.json()
        assert state["active"]["status"]["status"] == 429
        assert state["served"]["unhealthy"] == 1
        for wrong in ({"nonsense": {}}, {"status": {"status": "x"}}, {"status": {"colour": 1}}, []):
            async with http.put("/simulator/faults", json=wrong) as response:
                assert response.status == 400
        assert set(running.faults.active) == {"status", "unhealthy"}
        async with http.delete("/simulator/faults") as response:
            assert response.status == 204
        async with http.get("/health") as response:
            assert response.status == 200

    async def test_probability(self, http, running):
        running.faults.set("status", status=500, probability=0.5)
        got = set()
        for _ in range(40):
            async with http.post("/v1/completions", json={"prompt": "a"}) as response:
                got.add(response.status)
        assert got == {200, 500}

    async def test_refuse_and_reopen(self, http, running):
        async with http.get("/health") as response:  # leaves a kept-alive connection
            assert response.status == 200
        running.faults.set("refuse")
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.post("/v1/chat/completions", json=CHAT)
        async with aiohttp.ClientSession(running.url) as fresh:
            with pytest.raises(aiohttp.ClientConnectorError):
                await fresh.get("/health")
        running.faults.clear("refuse")
        await until(lambda: running._listener is not None)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200

    async def test_refuse_heals_by_itself(self, http, running):
        running.faults.set("refuse", for_seconds=0.05)
        await until(lambda: running._listener is not None)
        async with http.get("/health") as response:
            assert response.status == 200

    @pytest.mark.parametrize("kind", ["reset_on_accept", "garbage"])
    async def test_no_http_answer(self, http, running, kind):
        running.faults.set(kind)
        with pytest.raises(aiohttp.ClientError):
            await http.post("/v1/chat/completions", json=CHAT)

    async def test_wrong_bodies_with_200(self, http, running):
        running.faults.set("html_200", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, response.content_type) == (200, "text/html")
        running.faults.set("json_200_error", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            assert "error" in await response.json()
        running.faults.set("cut_json", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            cut = await response.read()
        with pytest.raises(json.JSONDecodeError):
            json.loads(cut)
        running.faults.set("truncated_json", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    async def test_redirect(self, http, running):
        running.faults.set("redirect", location="http://127.0.0.1:9/x")
        async with http.post("/v1/chat/completions", json=CHAT, allow_redirects=False) as response:
            assert response.status == 307
            assert response.headers["location"] == "http://127.0.0.1:9/x"

    async def test_silences(self, http, running):
        short = aiohttp.ClientTimeout(total=0.3)
        running.faults.set("silent", count=1)
        with pytest.raises(TimeoutError):
            await http.post("/v1/chat/completions", json=CHAT, timeout=short)
        running.faults.set("silent_after_headers", count=1)
        async with http.post("/v1/chat/completions", json=self.stream, timeout=short) as response:
            assert response.status == 200
            with pytest.raises(TimeoutError):
                await response.read()
        await until(lambda: running.engine.running == 0)

    async def test_slow_headers(self, http, running):
        running.faults.set("slow_headers", delay_s=0.2)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
        assert loop.time() - begun >= 0.19

    async def read_until_broken(self, http, sock_read=10.0):
        raw, patience = b"", aiohttp.ClientTimeout(total=20, sock_read=sock_read)
        async with http.post(
            "/v1/chat/completions", json=self.stream, timeout=patience
        ) as response:
            try:
                async for data in response.content.iter_any():
                    raw += data
            except aiohttp.ClientError as error:
                return raw, error
        return raw, None

    async def test_deaths(self, http, running):
        running.faults.set("die_before_content", count=1)
        raw, error = await self.read_until_broken(http)
        assert error is not None
        assert raw.count(b"data: ") == 1
        assert b'"role":"assistant"' in raw
        running.faults.set("die_after", chunks=4, count=1)
        raw, error = await self.read_until_broken(http)
        assert error is not None
        assert raw.count(b"data: ") == 1 + 4
        await until(lambda: running.engine.running == 0)

    async def test_stall_after(self, http, running):
        running.faults.set("stall_after", chunks=3)
        raw, error = await self.read_until_broken(http, sock_read=0.4)
        assert isinstance(error, TimeoutError)
        assert raw.count(b"data: ") == 1 + 3

    async def test_no_done(self, http, running):
        running.faults.set("no_done")
        raw, error = await self.read_until_broken(http)
        assert error is None
        assert b"[DONE]" not in raw
        assert b'"usage"' in raw

    async def test_error_frame_after(self, http, running, sdk):
        running.faults.set("error_frame_after", chunks=2)
        raw, error = await self.read_until_broken(http)
        assert error is None
        frames = raw.strip().split(b"\n\n")
        assert json.loads(frames[-2].removeprefix(b"data: "))["error"]["code"] == 500
        assert (len(frames), frames[-1]) == (1 + 2 + 2, b"data: [DONE]")
        with pytest.raises(openai.APIError):
            async for _ in await sdk.chat.completions.create(
                model="phi-3-mini", messages=HELLO, stream=True
            ):
                pass

    async def test_split_events(self, http, running):
        whole, _ = await self.read_until_broken(http)
        running.faults.set("split_events")
        split, error = await self.read_until_broken(http)
        assert error is None
        ids = re.compile(rb'"id":"[^"]+"|"created":\d+|"simulated":.*')
        assert ids.sub(b"", split) == ids.sub(b"", whole)

    async def test_stream_faults_leave_unary_requests_alone(self, http, running):
        running.faults.set("die_after", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            await response.read()
        assert running.faults.served["die_after"] == 0


def test_counting_is_bounded_and_close_to_the_whole():
    text = "Some words, and then some more. " * 40_000
    exact = len(tokens.encode(text))
    assert tokens.count_pieces(text) == pytest.approx(exact, rel=0.05)
    assert "".join(tokens.split(text[:5000])) == text[:5000]
    assert tokens.decode([0, -5, 2**60]) == "\N{REPLACEMENT CHARACTER}" * 3
