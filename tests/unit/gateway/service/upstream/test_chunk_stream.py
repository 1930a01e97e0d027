"""What chunks say: odd ones are understood, and nothing that went wrong passes for an answer."""

import json

import pytest

from backends.errors import BackendStatusError, InvalidResponse
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.upstream.chunk_stream import ChunkStream
from tests.unit.gateway.service.upstream.test_stream import Pieces

CALLED = {"id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "served"}
DONE = b"data: [DONE]\n\n"


def event(value):
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def chunk(content=None, finish=None, index=0, **more):
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event({**CALLED, "choices": [choice], **more})


def usage(**more):
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return event({**CALLED, "choices": [], "usage": counts, **more})


ONE, STOP = chunk("one"), chunk(finish="stop")


async def relayed(*pieces, model="served", **options):
    """What a client got, and the error that broke it; nothing where it never began."""
    stream = ChunkStream(Pieces(*pieces), model, **{"wants_usage": False} | options)
    sent = []

    async def send(message):
        sent.append(message.get("body", b""))

    try:
        await stream.read_to_first_content()
        await stream.relay_to_client(ResponseWriter(send, "r"), RequestCancellation(), None)
    except (InvalidResponse, BackendStatusError) as error:
        return b"".join(sent), error
    return b"".join(sent), None


BAD = {
    "an event called error": b'event: error\ndata: {"message":"died","code":500}\n\n',
    "one with a text": b"event: error\ndata: died\n\n",
    "one without data": b"event: error\n\n",
    "an error that looks like a token": b"event: error\n" + chunk("x"),
    "an error object": event({"object": "error", "message": "died", "code": 500}),
    "an error by type": event({"type": "error", "error": {"message": "died"}}),
    "an error among choices": chunk("x", error={"message": "died"}),
    "a detail": event({"detail": "died"}),
    "null choices": event({**CALLED, "choices": None}),
    "choices that are none": event({**CALLED, "choices": {}}),
    "bad UTF-8": ONE.replace(b"one", b"o\xffe"),
    "bad UTF-8 in a comment": b": o\xffe\n\n",
    "half an event": b'data: {"id"\n\n',
    "JSON broken within": ONE.replace(b'"one"', b'"o"ne"'),
    "two chunks in one": ONE.replace(b"\n\n", b"") + ONE[6:],
    "no JSON": b"data: died\n\n",
    "JSON of another kind": b"data: [1]\n\n",
    "bare JSON": b'{"error":{"message":"died"}}\n\n',
    "HTML": b"<html>502</html>\n\n",
    "given up": chunk(finish="abort"),
    "an engine's error": chunk(finish="error"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_went_wrong_breaks_the_stream(name):
    for pieces in ((ONE, BAD[name], STOP, DONE), (ONE + BAD[name] + STOP + DONE,)):
        got, error = await relayed(*pieces)
        assert error is not None
        assert got == ONE


@pytest.mark.parametrize("name", BAD)
async def test_so_it_does_behind_a_choice_without_an_index(name):
    first = chunk("one", index=None)
    got, error = await relayed(first, BAD[name], STOP, DONE)
    assert error is not None
    assert got == first


@pytest.mark.parametrize("name", BAD)
async def test_before_the_first_content_it_can_be_tried_elsewhere(name):
    got, error = await relayed(BAD[name], ONE, STOP, DONE)
    assert error is not None
    assert got == b""


@pytest.mark.parametrize("finish", [STOP, chunk("!", "length"), chunk(finish="tool_calls")])
async def test_a_finished_answer_is_whole(finish):
    assert await relayed(ONE, finish, DONE) == (ONE + finish + DONE, None)
    assert await relayed(ONE, finish) == (ONE + finish + DONE, None)
    assert await relayed(ONE, finish, DONE[:-1]) == (ONE + finish + DONE, None)
    assert await relayed(ONE, finish[:-1]) == (ONE + finish + DONE, None)


@pytest.mark.parametrize("rest", [b'data: {"id"', b"data: [DO", STOP[:-9]])
async def test_a_finished_answer_that_goes_on_with_half_an_event_is_broken(rest):
    got, error = await relayed(ONE, STOP, rest)
    assert isinstance(error, InvalidResponse)
    assert got == ONE + STOP


async def test_an_empty_finish_reason_finishes_nothing():
    assert await relayed(chunk("one", ""), STOP) == (chunk("one", "") + STOP + DONE, None)
    for end in ((), (DONE,)):
        got, error = await relayed(chunk("one", ""), *end)
        assert isinstance(error, InvalidResponse)
        assert got == chunk("one", "")


async def test_each_of_several_choices_must_finish():
    other, end = chunk("two", index=1), chunk(finish="stop", index=1)
    whole = (ONE, other, STOP, end)
    assert await relayed(*whole, DONE, choices=2) == (b"".join(whole) + DONE, None)
    assert await relayed(*whole, choices=2) == (b"".join(whole) + DONE, None)
    for cut in ((ONE, other, STOP), (ONE, other, STOP, DONE), (ONE, STOP)):
        got, error = await relayed(*cut, choices=2)
        assert isinstance(error, InvalidResponse)
        assert not got.endswith(DONE)
    # How many there are to be is not known: only the end marker tells.
    assert (await relayed(*whole, DONE, choices=0))[1] is None
    assert isinstance((await relayed(*whole, choices=0))[1], InvalidResponse)


async def test_the_fingerprint_goes_on_the_chunk_before():
    told = usage(system_fingerprint="vllm-0.32-abc")
    stamped = STOP[:-3] + b',"system_fingerprint":"vllm-0.32-abc"}\n\n'
    assert await relayed(ONE, STOP, told, DONE) == (ONE + stamped + DONE, None)
    assert await relayed(ONE + STOP + told + DONE) == (ONE + stamped + DONE, None)
    assert await relayed(ONE, STOP, usage(), DONE) == (ONE + STOP + DONE, None)
    # Where the chunk has one already, a second member of its name would be no proper JSON.
    assert await relayed(ONE, stamped, told, DONE) == (ONE + stamped + DONE, None)
    null = usage(system_fingerprint=None)
    assert await relayed(ONE, STOP, null, DONE) == (ONE + STOP + DONE, None)
    wanted = ONE + STOP + told + DONE
    assert await relayed(ONE, STOP, told, DONE, wants_usage=True) == (wanted, None)


async def test_usage_that_vllm_forces_on_everybody_is_passed_on():
    counts = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    whole = chunk("one", usage=counts) + chunk(finish="stop", usage=counts) + usage() + DONE
    assert await relayed(whole) == (whole, None)


async def test_what_stands_on_several_lines_is_put_on_one():
    lines = ONE.replace(b'"model":', b'"model":\ndata: ')
    lines = lines.replace(b',"created"', b',\ndata: "created"')
    got, error = await relayed(b"id: 7\n" + lines, STOP, DONE, model="m")
    assert error is None
    assert got == (ONE + STOP).replace(b"served", b"m") + DONE


@pytest.mark.parametrize("first", [{"model": None}, {"model": ""}])
async def test_the_name_is_of_whichever_chunk_first_has_it(first):
    early = chunk("zero", **first)
    got, error = await relayed(early, ONE, STOP, DONE, model="m")
    assert error is None
    assert got == early + (ONE + STOP).replace(b"served", b"m") + DONE


PASSED = [event({**CALLED, "choices": []}), b": ping\n\n"]
LEFT_OUT = [
    b'event: ping\ndata: {"type":"ping"}\n\n',
    b'data: {"type":"ping"}\n\n',
    b"event: ping\n\n",
    b"retry: 100\n\n",
    b"data:\n\n",
]


@pytest.mark.parametrize("odd", PASSED + LEFT_OUT)
async def test_what_has_no_choices_is_no_sign_of_life(odd):
    stream = ChunkStream(Pieces(ONE, odd, chunk("two"), STOP, DONE), "served", wants_usage=False)
    lifeline, sent, alive = RequestCancellation(), [], []

    async def send(message):
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            alive.append(lifeline.last > 1.0)
            lifeline.last = 1.0

    await stream.read_to_first_content()
    await stream.relay_to_client(ResponseWriter(send, "r"), lifeline, None)
    if odd in PASSED:
        assert sent == [ONE, odd, chunk("two"), STOP + DONE]
        assert alive == [True, False, True, True]
    else:
        assert sent == [ONE, chunk("two"), STOP + DONE]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"])
async def test_other_line_ends(ends):
    whole = (ONE + STOP + DONE).replace(b"\n", ends)
    for size in (1, 7, len(whole)):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert await relayed(*pieces) == (ONE + STOP + DONE, None)


async def test_a_byte_order_mark_hides_nothing():
    assert await relayed(b"\xef\xbb\xbf" + ONE, STOP, DONE) == (ONE + STOP + DONE, None)
