"""What a meter is told of a request: counts and times of vLLM's where they are there and sane."""

import pytest
from aiohttp import web

from tests.integration.fake_meter import FakeMeter
from tests.integration.harness import CHAT, STREAM, metered, model, until
from tests.integration.scripted import DONE_EVENT, chat, delta, event, stream, usage

TIMINGS = {"time_to_first_token_ms": 300.0, "generation_time_ms": 100.0, "queue_time_ms": 40.0}
_MARGIN_US = 1000


@pytest.fixture
async def told(world):
    """Ask a backend that answers with `fields`; return the request's events and its record."""

    async def ask(body, answer):
        meter = await world.stack.enter_async_context(FakeMeter())
        backend = await world.recorder(answer)
        gate = await world.gate(model("phi-3-mini", metered(backend, meter)))
        got = await gate.ask(body)
        assert got.status == 200

        async def final():
            return (await gate.record(got)).get("observed", {}).get("joules") is not None

        await until(final, "the observation")
        record = await gate.record(got)
        assert (record["observed"]["joules"], record["observed"]["method"]) == (7.0, "exclusive")
        assert not any(event[1] != meter.events[0][1] for event in meter.events)
        return meter.events, record

    return ask


def whole(details=None, metrics=None, **counts):
    async def answer(request, seen):
        del request, seen
        usage = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28} | counts
        fields = {"usage": usage | {"prompt_tokens_details": details}, "metrics": metrics}
        return web.json_response(chat(**fields))

    return answer


def streamed(details=None, metrics=None, **counts):
    tail = {"choices": [], "metrics": metrics, "id": "chatcmpl-1", "model": "phi-3-mini"}

    async def answer(request, seen):
        del seen
        usage = {"prompt_tokens": 20, "completion_tokens": 8, "total_tokens": 28} | counts
        words = [delta(role="assistant", content=""), *(delta(content="Hi") for _ in range(8))]
        last = event(tail | {"usage": usage | {"prompt_tokens_details": details}})
        return await stream(request, *words, last, DONE_EVENT)

    return answer


KINDS = pytest.mark.parametrize(("body", "made"), [(CHAT, whole), (STREAM, streamed)])


@KINDS
async def test_counts_and_queue_time(told, body, made):
    events, record = await told(body, made({"cached_tokens": 16}, TIMINGS))
    begin, first, end = sorted(events, key=lambda event: "bpe".index(event[0]))
    assert begin[4] == record["decision"]["tokens"]["input"]
    assert begin[5] > 0
    assert first[3] == 1
    assert end[3:] == [8, 20, 16, 40_000, False]
    assert begin[7] > 0  # what a generated token costs


@KINDS
async def test_without_them(told, body, made):
    events, _ = await told(body, made())
    assert next(event for event in events if event[0] == "e")[3:] == [8, 20, None, None, False]


async def test_the_first_token_of_a_whole_answer_is_where_vllm_says(told):
    events, _ = await told(CHAT, whole(None, TIMINGS))
    (begin,), (first,), (end,) = ([e for e in events if e[0] == kind] for kind in "bpe")
    assert begin[2] - first[2] == pytest.approx(0.75 * (begin[2] - end[2]), abs=_MARGIN_US)


async def test_else_it_is_where_the_regression_has_it(told):
    events, record = await told(CHAT, whole())
    (begin,), (first,), (end,) = ([e for e in events if e[0] == kind] for kind in "bpe")
    b0, b1, b2 = (-0.0249375703274, 0.0070999683397, 0.0467503583221)
    assert record["usage"] == {"prompt_tokens": 20, "completion_tokens": 8, "cached_tokens": None}
    share = (b0 + 20 * b1) / (b0 + 20 * b1 + 8 * b2)
    assert begin[2] - first[2] == pytest.approx(share * (begin[2] - end[2]), abs=_MARGIN_US)


@KINDS
@pytest.mark.parametrize(
    "metrics",
    [
        [],
        "soon",
        17,
        {"queue_time_ms": -1.0, "time_to_first_token_ms": None},
        {"queue_time_ms": 1e308, "time_to_first_token_ms": 1e308, "generation_time_ms": 1e308},
        {"queue_time_ms": "40", "generation_time_ms": True, "time_to_first_token_ms": []},
        {"queue_time_ms": 10**60, "time_to_first_token_ms": 0, "generation_time_ms": 0},
    ],
)
async def test_odd_timings_are_ignored(told, body, made, metrics):
    events, _ = await told(body, made(None, metrics))
    assert next(event for event in events if event[0] == "e")[3:] == [8, 20, None, None, False]


@KINDS
@pytest.mark.parametrize("details", [{"cached_tokens": "4"}, {"cached_tokens": True}, {"x": 1}, {}])
async def test_odd_cached_tokens_are_ignored(told, body, made, details):
    events, _ = await told(body, made(details))
    assert next(event for event in events if event[0] == "e")[5] is None


@pytest.mark.parametrize("cached", [0, 16])
async def test_a_backend_that_caches_is_remembered_as_one(told, cached):
    events, _ = await told(CHAT, whole({"cached_tokens": cached}))
    assert next(event for event in events if event[0] == "b")[6] is (cached > 0)


async def test_a_stream_that_breaks_off_has_the_tokens_that_came(world):
    async def broken(request, seen):
        del seen
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(6):
            await response.write(delta(content="Hi"))
        request.transport.close()
        return response

    meter = await world.stack.enter_async_context(FakeMeter())
    gate = await world.gate(model("phi-3-mini", metered(await world.recorder(broken), meter)))
    await gate.ask(STREAM)
    (end,) = await until(meter.ends, "its end")
    assert (end[3], end[4]) == (5, None)


async def test_usage_of_the_scripted_kind(told):
    """The stream that the other tests know: one token a chunk, usage at its end."""

    async def answer(request, seen):
        del seen
        words = [delta(role="assistant", content=""), delta(content="Hi"), usage(), DONE_EVENT]
        return await stream(request, *words)

    events, _ = await told(STREAM, answer)
    assert next(event for event in events if event[0] == "e")[3:5] == [2, 5]
