"""A stream read to its end: the same figures however its bytes are cut."""

import json

import pytest

from backends.errors import ConnectionLost, InvalidResponse
from calibration.endpoint.stream import SimulatedRequestCost, read_stream


class Pieces:
    """An answer whose bytes come in these pieces, then end."""

    def __init__(self, *pieces):
        self._pieces = list(pieces)

    async def read_chunk(self):
        return self._pieces.pop(0) if self._pieces else b""


def event(**members):
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def delta(**members):
    return {"choices": [{"delta": members}]}


OPENING = event(**delta(role="assistant", content=""))
DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
}
LAST = event(choices=[], usage=USAGE)
STREAM = (
    OPENING
    + b": ping\n\n"
    + event(**delta(content="a"))
    + event(**delta(content=""))  # half of a character: a token without text
    + event(**delta(content="b"))
    + LAST
    + DONE
)


async def read(*pieces):
    heard = []
    found = await read_stream(Pieces(*pieces), "r", 0.0, heard.append)
    return found, heard


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
async def test_tokens_and_usage_however_the_bytes_are_cut(size):
    found, heard = await read(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))
    assert heard == [1, 1, 1]
    assert (found.tokens_in, found.tokens_out, found.cached_tokens) == (12, 3, 4)
    assert found.simulated is None
    assert 0.0 < found.ttft_seconds <= found.seconds == found.ended


async def test_crlf_line_ends_are_read_too():
    _, heard = await read(STREAM.replace(b"\n", b"\r\n"))
    assert heard == [1, 1, 1]


async def test_usage_so_far_counts_where_the_server_says_it():
    told = [event(**delta(content="abc"), usage={"completion_tokens": n}) for n in (2, 5)]
    _, heard = await read(OPENING, *told, LAST, DONE)
    assert heard == [2, 3]


async def test_text_completions_have_no_delta():
    _, heard = await read(event(choices=[{"text": "a"}]), LAST, DONE)
    assert heard == [1]


async def test_a_simulator_tells_its_own_seconds_and_joules():
    cost = {"energy_joules": 7.5, "seconds": 2.0, "speed": 10.0}
    last = event(choices=[], usage=USAGE, metrics={"time_to_first_token_ms": 50.0}, simulated=cost)
    found, _ = await read(OPENING, event(**delta(content="a")), last, DONE)
    assert found.simulated == SimulatedRequestCost(7.5, 2.0, 10.0)
    assert (found.seconds, found.ttft_seconds) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("stream", "error", "said"),
    [
        (OPENING, ConnectionLost, "without"),
        (OPENING + DONE, InvalidResponse, "no usage"),
        (event(choices=[], usage={"prompt_tokens": 1}) + DONE, InvalidResponse, "no usage"),
        (b"data: {\n\n", InvalidResponse, "not an event"),
        (b'data: {"id": "\xff"}\n\n', InvalidResponse, "not an event"),
        (event(error={"message": "out of memory"}), InvalidResponse, "out of memory"),
    ],
)
async def test_what_is_no_answer_is_refused(stream, error, said):
    with pytest.raises(error, match=said):
        await read(stream)
