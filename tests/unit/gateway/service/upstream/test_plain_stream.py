"""A stream that nobody reads: passed on as it comes, to its end."""

import pytest

from backends.errors import BackendStatusError, InvalidResponse
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.client.response import ResponseWriter
from gateway.service.upstream.plain_stream import PlainStream
from tests.unit.gateway.service.upstream.test_stream import FAILURE, Pieces, wire


async def relayed(*pieces):
    """What a client gets of a stream that came in these pieces."""
    got = []

    async def send(message):
        got.append(message.get("body", b""))

    stream = PlainStream(Pieces(*pieces), "m")
    await stream.read_to_first_content()
    await stream.relay_to_client(ResponseWriter(send, "r"), RequestCancellation(), None)
    return b"".join(got)


@pytest.mark.parametrize("last", [b'data: {"text":"b"}\n\n', b'data: {"text":"b"}'])
async def test_all_of_it_is_passed_on_the_last_event_without_its_blank_line_too(last):
    first = wire('{"text":"a"}')
    assert await relayed(first[:9], first[9:], last) == first + b'data: {"text":"b"}\n\n'


async def test_an_error_breaks_it():
    with pytest.raises(BackendStatusError):
        await relayed(wire('{"text":"a"}'), wire(FAILURE))
    with pytest.raises(BackendStatusError):
        await relayed(wire(FAILURE))


async def test_without_an_event_it_is_a_failed_attempt():
    with pytest.raises(InvalidResponse, match="before any content"):
        await relayed(b": nothing yet\n\n")
