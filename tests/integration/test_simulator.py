"""The simulated vLLM's answers over real sockets, with aiohttp for the bytes."""

import asyncio
import json

import aiohttp
import pytest

from backends.simulator.server import start_simulator
from tests.integration import simulated
from tests.integration.simulated import CHAT, HELLO, SPEC, TRUTH, metric, spec

running, http = simulated.running, simulated.http


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
            await start_simulator(flags) as server,
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


async def test_the_same_seed_gives_the_same_answer_on_another_server(http):
    async def ask(session, words):
        body = CHAT | {"messages": [{"role": "user", "content": words}]}
        async with session.post("/v1/chat/completions", json=body) as response:
            return (await response.json())["choices"][0]["message"]["content"]

    async with await start_simulator(SPEC) as twin, aiohttp.ClientSession(twin.url) as session:
        assert await ask(session, "one") == await ask(http, "one") != await ask(http, "two")
