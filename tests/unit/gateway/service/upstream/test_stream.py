"""A stream on its way: opened at its first content, passed on whole, ended by [DONE] or broken."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import BackendStatusError, ConnectionLost, InvalidResponse
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.upstream.chunk_stream import ChunkStream

HEAD = '{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1795155016,"model":"served",'
ROLE = (
    HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
)
ONE = HEAD + '"choices":[{"index":0,"delta":{"content":" Grüße"},"finish_reason":null}]}'
TWO = HEAD + '"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}]}'
USAGE = (
    HEAD + '"choices":[],"usage":{"prompt_tokens":12,"total_tokens":16,"completion_tokens":4,'
    '"prompt_tokens_details":{"cached_tokens":8}}}'
)
WHOLE = (ROLE, ONE, TWO, USAGE, "[DONE]")
FAILURE = (
    '{"error":{"message":"out of memory","type":"InternalServerError","param":null,"code":500}}'
)


class Pieces:
    """Stands in for an answer: gives prepared chunks, raises an exception among them."""

    def __init__(self, *pieces):
        self.left = list(pieces)

    async def read_chunk(self):
        piece = self.left.pop(0) if self.left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def finish_reading(self):
        pass


def wire(*events):
    return "".join(f"data: {event}\n\n" for event in events).encode()


def renamed(*events):
    return wire(*events).replace(b'"model":"served"', b'"model":"m"')


class Relayed:
    """What a client got of a stream, and how it ended."""

    def __init__(self, answer, *, wants_usage=False, model="m"):
        self.stream = ChunkStream(answer, model, wants_usage=wants_usage)
        self.messages = []

    async def run(self, explain=None):
        async def send(message):
            self.messages.append(message)

        await self.stream.read_to_first_content()
        await self.stream.relay_to_client(ResponseWriter(send, "r"), RequestCancellation(), explain)
        return self

    @property
    def body(self):
        return b"".join(message["body"] for message in self.messages)

    @property
    def complete(self):
        return bool(self.messages) and not self.messages[-1]["more_body"]


async def test_all_but_the_usage_that_only_the_gateway_wanted():
    got = await Relayed(Pieces(wire(*WHOLE))).run()
    assert got.body == renamed(ROLE, ONE, TWO, "[DONE]")
    assert got.complete
    usage = got.stream.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (12, 4)


async def test_usage_that_the_client_wanted_is_passed_on():
    got = await Relayed(Pieces(wire(*WHOLE)), wants_usage=True).run()
    assert got.body == renamed(*WHOLE)


async def test_a_stream_by_the_clients_own_name_is_passed_on_byte_for_byte():
    got = await Relayed(Pieces(wire(*WHOLE)), wants_usage=True, model="served").run()
    assert got.body == wire(*WHOLE)


@given(st.lists(st.integers(0, len(wire(*WHOLE))), max_size=10).map(sorted))
def test_any_chopping_gives_the_client_the_same(cuts):
    stream = wire(*WHOLE)
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    # An empty piece would be the end.
    got = asyncio.run(Relayed(Pieces(*filter(None, pieces))).run())
    assert got.body == renamed(ROLE, ONE, TWO, "[DONE]")
    assert got.complete
    assert got.stream.usage.completion_tokens == 4


async def test_it_is_opened_at_its_first_content_and_not_before():
    answer = Pieces(b": ping\n\n", wire(ROLE), wire(ONE)[:20], wire(ONE)[20:], wire(TWO))
    stream = ChunkStream(answer, "m", wants_usage=False)
    await stream.read_to_first_content()
    assert answer.left == [wire(TWO)]


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([], InvalidResponse),
        ([wire(ROLE)], InvalidResponse),
        ([b"<html>502</html>"], InvalidResponse),
        ([wire("<html>")], InvalidResponse),
        ([wire(ROLE), ConnectionLost("reset")], ConnectionLost),
        ([wire(FAILURE, "[DONE]")], BackendStatusError),
        ([wire(ROLE, FAILURE)], BackendStatusError),
        ([wire(ROLE)] * 9000, InvalidResponse),
    ],
)
async def test_what_breaks_before_the_first_content_can_be_tried_elsewhere(pieces, error):
    with pytest.raises(error):
        await ChunkStream(Pieces(*pieces), "m", wants_usage=False).read_to_first_content()


async def test_an_empty_answer_is_an_answer():
    stop = HEAD + '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    got = await Relayed(Pieces(wire(ROLE, stop, "[DONE]"))).run()
    assert got.body == renamed(ROLE, stop, "[DONE]")
    assert got.complete


async def test_an_end_that_nothing_finished_is_none():
    with pytest.raises(InvalidResponse, match="before any content"):
        await Relayed(Pieces(wire(ROLE, "[DONE]"))).run()
    got = Relayed(Pieces(wire(ROLE, ONE, "[DONE]")))
    with pytest.raises(InvalidResponse, match="before a finish_reason"):
        await got.run()
    assert got.body == renamed(ROLE, ONE)
    assert not got.complete


async def test_a_finished_answer_without_its_end_marker_is_given_one():
    got = await Relayed(Pieces(wire(ROLE, ONE, TWO))).run()
    assert got.body == renamed(ROLE, ONE, TWO, "[DONE]")
    assert got.complete


async def test_of_several_answers_one_may_have_finished_before_the_stream_broke():
    got = Relayed(Pieces(wire(ROLE, ONE, TWO)))
    got.stream._choices = 2
    with pytest.raises(InvalidResponse, match="without its end marker"):
        await got.run()


@pytest.mark.parametrize("event", ['{"id"', '{"id":"a\xff"}'])
async def test_an_event_that_cannot_be_read_breaks_the_stream(event):
    got = Relayed(Pieces(wire(ROLE, ONE), b"data: " + event.encode("latin-1") + b"\n\n"))
    with pytest.raises(InvalidResponse, match="not JSON"):
        await got.run()
    assert got.body == renamed(ROLE, ONE)


async def test_comments_and_half_events_are_no_sign_of_life():
    got = Relayed(
        Pieces(wire(ROLE, ONE), b": ping\n\n", b"data: {", b'"choices":[', ConnectionLost())
    )
    lifeline = RequestCancellation()
    await got.stream.read_to_first_content()

    async def send(message):
        got.messages.append(message)
        if b"ping" not in message["body"]:
            lifeline.last = 1.0

    with pytest.raises(ConnectionLost):
        await got.stream.relay_to_client(ResponseWriter(send, "r"), lifeline, None)
    assert lifeline.last == 1.0
    assert got.body.endswith(b": ping\n\n")


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([wire(ROLE, ONE)], InvalidResponse),
        ([wire(ROLE, ONE), wire(TWO)[:-9]], InvalidResponse),
        ([wire(ROLE, ONE), ConnectionLost("reset")], ConnectionLost),
        ([wire(ROLE, ONE), wire(FAILURE, "[DONE]")], BackendStatusError),
        ([wire(ROLE, ONE, FAILURE, "[DONE]")], BackendStatusError),
    ],
)
async def test_what_breaks_later_is_told_after_what_had_come(pieces, error):
    got = Relayed(Pieces(*pieces))
    with pytest.raises(error):
        await got.run()
    # No [DONE], no end, no part of an event, and vLLM's own error event is kept back.
    assert got.body == renamed(ROLE, ONE)
    assert not got.complete


async def test_a_broken_streams_status_is_vllms():
    with pytest.raises(BackendStatusError) as caught:
        await Relayed(Pieces(wire(ROLE, ONE, FAILURE.replace("500}", "400}")))).run()
    assert caught.value.status == 400


async def test_an_explanation_is_the_last_chunk_before_the_end():
    asked = []

    def explain():
        asked.append(1)
        return b'{"score":0.25}'

    got = await Relayed(Pieces(wire(*WHOLE))).run(explain)
    *_, explanation, done, rest = got.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert json.loads(explanation.removeprefix(b"data: ")) == {
        "id": "chatcmpl-9",
        "object": "chat.completion.chunk",
        "created": 1795155016,
        "model": "m",
        "choices": [],
        "joulegate": {"score": 0.25},
    }
    assert asked == [1]


async def test_nothing_behind_the_end_is_passed_on():
    got = await Relayed(Pieces(wire(*WHOLE, ONE, "[DONE]"), wire(TWO))).run()
    assert got.body == renamed(ROLE, ONE, TWO, "[DONE]")


async def test_text_that_looks_like_an_error_or_an_end_is_text():
    tricky = json.dumps(
        {"choices": [{"delta": {"content": 'data: [DONE]\n\n {"error":{"code":500}} "usage":{'}}]}
    )
    got = await Relayed(Pieces(wire(ROLE, ONE, tricky, TWO, "[DONE]"))).run()
    assert got.body == renamed(ROLE, ONE, tricky, TWO, "[DONE]")
    assert got.complete
