"""Streams that break after content began: the content, one error frame, the end."""

import json

import openai
import pytest

from gateway.config import TimeoutsConfig, WeightsConfig
from tests.integration.harness import ACCURACY, DONE, ENERGY, HELLO, STREAM, model
from tests.integration.scripted import DONE_EVENT, delta, event, stream

pytestmark = pytest.mark.asyncio(loop_scope="module")
FLEET = {"timeouts": TimeoutsConfig(stall_seconds=1)}
CASES = [
    ("die_after", 5, "stream_interrupted", "connection_lost"),
    ("stall_after", 5, "upstream_timeout", "stalled"),
    ("error_frame_after", 5, "stream_interrupted", "status_5xx"),
]


def check_frame(got, code):
    """Exactly one error frame, at the very end of a connection that broke."""
    assert got.status == 200
    assert DONE not in got.events
    assert got.error is not None
    assert got.raw.endswith(b"\n\n")
    frames = [chunk for chunk in got.chunks if "error" in chunk]
    assert frames == [got.chunks[-1]]
    assert set(frames[0]) == {"error"}
    error = frames[0]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("server_error", code)
    return error


@pytest.mark.parametrize("headers", [ENERGY, ENERGY | {"x-joulegate-explain": "true"}])
@pytest.mark.parametrize(("kind", "chunks", "code", "reason"), CASES)
async def test_one_error_frame_ends_it(fleet, gate, kind, chunks, code, reason, headers):
    whole = await gate.ask(STREAM, headers)
    fleet.fail(fleet.phi, kind, chunks=chunks)
    labels = {"model": "phi-3-mini", "reason": reason}
    before = await gate.metric("joulegate_streams_broken_total", **labels)
    got = await gate.ask(STREAM, headers)
    check_frame(got, code)
    content = [c for c in got.chunks[:-1] if c["choices"][0]["delta"].get("content") is not None]
    # The role comes in a chunk of its own, then the content up to the break.
    assert len(content) == 1 + chunks
    assert whole.text.startswith(got.text)
    assert got.text
    assert await gate.metric("joulegate_streams_broken_total", **labels) - before == 1
    record = await gate.record(got)
    assert len(record["attempts"]) == 1
    assert record["model"] == "phi-3-mini"
    # What was spent until then is not forgotten.
    assert record["observed"]["joules"] > 0


@pytest.mark.parametrize(("kind", "chunks", "code", "reason"), CASES)
async def test_the_sdk_raises_after_the_content(fleet, gate, kind, chunks, code, reason):
    del reason
    fleet.fail(fleet.phi, kind, chunks=chunks)
    words = []

    async def read(answer):
        async for chunk in answer:
            words.extend(choice.delta.content or "" for choice in chunk.choices)

    async with gate.sdk() as sdk:
        answer = await sdk.chat.completions.create(
            model="auto:energy", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        with pytest.raises(openai.APIError) as caught:
            await read(answer)
        await answer.close()
    assert caught.value.code == code
    assert "phi-3-mini" in caught.value.message
    assert "".join(words).startswith("[simulated phi-3-mini")


async def test_never_spliced_with_another_model(fleet, gate):
    fleet.fail(fleet.all, "die_after", chunks=2)
    before = [server.faults.served["die_after"] for server in fleet.all]
    got = await gate.ask(STREAM, ACCURACY)
    check_frame(got, "stream_interrupted")
    assert {c["model"] for c in got.chunks[:-1]} == {"mistral-7b"}
    after = [server.faults.served["die_after"] for server in fleet.all]
    assert sum(after) - sum(before) == 1


async def test_a_broken_stream_is_a_failure_of_its_backend(fleet, gate):
    fleet.fail([fleet.falcon], "die_after")
    backend = gate.backend(fleet.falcon)
    before = backend._failures
    await gate.ask(STREAM | {"model": "falcon-7b"})
    assert backend._failures == before + 1


ERROR = event({"error": {"message": "engine died", "type": "InternalServerError", "code": 500}})


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    "pieces",
    [
        [delta(content="one"), delta(content="two"), ERROR],
        [delta(content="one"), delta(content="two") + ERROR + DONE_EVENT],
        [delta(content="one") + delta(content="two") + ERROR],
        [delta(role="assistant", content="") + delta(content="one") + delta(content="two") + ERROR],
        [delta(content="one"), delta(content="two") + b'data: {"error":"in short"}\n\n'],
        [delta(content="one"), delta(content="two") + b"data: cut of"],
        [delta(content="one"), delta(content="two"), b'data: {"choices":[{"delta":{"content":"th'],
    ],
)
async def test_content_before_the_break_is_intact_however_it_came(world, pieces):
    async def answer(request, _):
        return await stream(request, *pieces)

    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask(STREAM)
    check_frame(got, "stream_interrupted")
    assert [c["choices"][0]["delta"].get("content") for c in got.chunks[:-1]][-2:] == ["one", "two"]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [DONE_EVENT[:8]],
        [b": comment\n\n"],
        [delta(role="assistant", content="")],
        [delta(role="assistant", content="") + ERROR],
        [b"data: not json\n\n"],
        [b"<html></html>"],
        [b"data: " + json.dumps([1]).encode() + b"\n\n"],
    ],
)
async def test_nothing_is_lost_where_no_content_came(world, pieces):
    async def answer(request, _):
        return await stream(request, *pieces)

    bad = await world.recorder(answer)
    good = await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", bad), model("mistral-7b", good), weights=WeightsConfig(energy=1)
    )
    got = await gate.ask(STREAM)
    assert (got.status, got.error, got.events[-1]) == (200, None, DONE)
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert {c["model"] for c in got.chunks} == {"mistral-7b"}


@pytest.mark.parametrize("headers", [ENERGY, ENERGY | {"x-joulegate-explain": "true"}])
async def test_a_finished_answer_without_its_end_marker_is_whole(fleet, gate, headers):
    whole = await gate.ask(STREAM, headers)
    fleet.fail(fleet.phi, "no_done")
    got = await gate.ask(STREAM, headers)
    assert (got.status, got.error) == (200, None)
    assert got.text == whole.text
    assert got.events[-1] == DONE
    assert ("joulegate" in got.chunks[-1]) is (headers is not ENERGY)
    assert (await gate.record(got))["code"] == 200
