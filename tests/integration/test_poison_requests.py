"""Requests and answers that no backend could do better: told at once, and nobody is blamed."""

import json

import pytest
from aiohttp import web

from gateway.config import HealthConfig, LimitsConfig, WeightsConfig
from tests.integration.harness import CHAT, DONE, STREAM, model
from tests.integration.scripted import DONE_EVENT, chat, delta, stream, usage

TOUCHY = HealthConfig(
    probe_seconds=3600, idle_probe_seconds=3600, eject_after_failures=1, eject_seconds=3600
)
"""Ejects for good after one failure."""
EMBEDDING = {
    "object": "list",
    "model": "phi-3-mini",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}


async def test_embeddings_that_ask_for_a_stream_are_answered_in_one_piece(world):
    async def answer(*_):
        return web.json_response(EMBEDDING)

    backend = await world.recorder(answer)
    gate = await world.gate(
        model("phi-3-mini", backend, capabilities=("embeddings",)), health=TOUCHY
    )
    for _ in range(3):
        body = {"model": "phi-3-mini", "input": "x", "stream": True}
        got = await gate.ask(body, path="/v1/embeddings")
        assert (got.status, got.headers["content-type"]) == (200, "application/json")
        assert got.json == EMBEDDING
    assert not gate.backend(backend).is_ejected
    record = await gate.record(got)
    assert (record["code"], record["usage"]["prompt_tokens"]) == (200, 3)
    assert await gate.metric("joulegate_requests_total", code="200") == 3


async def test_a_large_first_event_is_relayed(world):
    text = "x" * (2 << 20)

    async def answer(request, _):
        role = delta(role="assistant", content="")
        end = (delta(finish_reason="stop"), usage(), DONE_EVENT)
        return await stream(request, role, delta(content=text), *end)

    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), health=TOUCHY)
    for _ in range(2):
        got = await gate.ask(STREAM)
        assert (got.status, got.error, got.events[-1]) == (200, None, DONE)
        assert got.text == text
    assert gate.backend(backend)._failures == 0


async def too_long(*_):
    return web.json_response(chat(content="x" * 5000))


async def endless_event(request, _):
    """Answer with 18 MB that no event ends in."""
    piece = b"x" * (3 << 20)
    return await stream(request, b'data: {"choices":[{"delta":{"content":"', *[piece] * 6)


@pytest.mark.parametrize(
    ("answer", "body", "times"), [(too_long, CHAT, 6), (endless_event, STREAM, 2)]
)
async def test_an_answer_too_large_ends_it_and_is_no_failure(world, answer, body, times):
    big = await world.recorder(answer)
    other = await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", big),
        model("mistral-7b", other),
        weights=WeightsConfig(energy=1),
        limits=LimitsConfig(max_answer_bytes=4096),
        health=TOUCHY,
    )
    for asked in range(1, times + 1):
        got = await gate.ask(body)
        assert (got.status, got.json["error"]["code"]) == (502, "answer_too_large")
        assert got.headers["x-joulegate-attempts"] == "1"
        assert len(big.seen) == asked
    assert got.json["error"]["type"] == "server_error"
    # Another model would be asked in vain for the same.
    assert other.seen == []
    state = gate.backend(big)
    assert (state.is_ejected, state.ejections, gate.idle) == (False, 0, True)
    assert await gate.metric("joulegate_requests_total", model="phi-3-mini", code="502") == times
    assert await gate.metric("joulegate_retries_total") == 0


async def test_an_endless_event_after_the_first_content_breaks_the_stream_only(world):
    async def answer(request, _):
        piece = b"x" * (3 << 20)
        head = b'data: {"choices":[{"delta":{"content":"'
        return await stream(request, delta(content="one"), head, *[piece] * 6)

    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), health=TOUCHY)
    for _ in range(2):
        got = await gate.ask(STREAM)
        assert got.status == 200
        contents = [c["choices"][0]["delta"].get("content") for c in got.chunks[:-1]]
        assert contents == ["one"]
        assert got.chunks[-1]["error"]["type"] == "server_error"
        assert got.error is not None
    assert not gate.backend(backend).is_ejected
    assert gate.idle


async def test_lenient_members_reach_the_backend(world):
    backend = await world.recorder()
    gate = await world.gate(model("phi-3-mini", backend))
    body = {
        "model": "auto:energy",
        "messages": [{"role": "user", "content": ["Hello", {"type": "text", "text": "there"}]}],
        "max_tokens": 100.0,
        "joulegate": None,
    }
    got = await gate.ask(body)
    assert got.status == 200, got.raw
    sent = backend.seen[0].json
    assert sent["messages"] == body["messages"]
    assert sent["max_tokens"] == 100
    assert "joulegate" not in sent


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_written_with_a_space_is_read_and_kept_back(world, wanted):
    counts = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    last = {"id": "1", "object": "x", "created": 1, "model": "phi-3-mini", "choices": []}
    spaced = f"data: {json.dumps(last | {'usage': counts})}\n\n".encode()
    assert b'"usage": {' in spaced

    async def answer(request, _):
        end = delta(finish_reason="stop")
        return await stream(request, delta(content="one"), end, spaced, DONE_EVENT)

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask(STREAM | {"stream_options": {"include_usage": wanted}})
    record = await gate.record(got)
    assert record["usage"]["prompt_tokens"] == 11
    assert record["usage"]["completion_tokens"] == 7
    assert (b'"usage": {' in got.raw) is wanted
    assert await gate.metric("joulegate_tokens_total", type="completion") == 7


async def test_backends_behind_one_proxy_are_told_apart(world):
    async def proxied(request, seen):
        if request.path.endswith("/health"):
            return web.Response()
        if request.path.startswith("/b/"):
            return web.json_response({"error": {"message": "no"}}, status=500)
        return web.json_response(chat(seen.json["model"]))

    proxy = await world.recorder(proxied)
    paths = [type("At", (), {"url": f"{proxy.url}/{path}"}) for path in "ab"]
    gate = await world.gate(model("phi-3-mini", *paths), health=TOUCHY)
    for _ in range(60):
        assert (await gate.ask()).status == 200
        if gate.backend(paths[1]).is_ejected:
            break
    page = (await gate.get("/metrics")).raw.decode()
    up = [line for line in page.splitlines() if line.startswith("joulegate_backend_up{")]
    assert len(up) == 2
    assert sorted(line.rpartition(" ")[2] for line in up) == ["0.0", "1.0"]
    assert await gate.metric("joulegate_backend_ejections_total") == 1
    labels = [backend.label for backend in gate.gateway.backends]
    assert len(set(labels)) == 2
    assert labels[0].startswith(proxy.url.removeprefix("http://"))
