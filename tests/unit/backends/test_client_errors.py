"""Every error of the layers below becomes one of ours; nothing else escapes the client."""

import builtins
import inspect
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from backends import client, errors
from backends.client import BackendResponse, mapped
from backends.errors import (
    BackendError,
    BackendStatusError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
)


def classes(base, *modules):
    """Yield every subclass of `base` that the modules make public."""
    for module in modules:
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, base):
                yield value


AIOHTTP = sorted(
    set(classes(aiohttp.ClientError, aiohttp, aiohttp.client_exceptions)),
    key=lambda kind: kind.__name__,
)
SYSTEM = sorted(set(classes(OSError, builtins, socket, ssl)), key=lambda kind: kind.__name__)

KEY = ConnectionKey("a", 8000, False, True, None, None, None)


def made(kind):  # noqa: PLR0911 - one line a family
    """Make an instance of an aiohttp error, whatever its constructor wants."""
    refused = OSError(111, "Connection refused")
    if issubclass(kind, aiohttp.client_exceptions.UnixClientConnectorError):
        return kind("/tmp/socket", KEY, refused)  # noqa: S108
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        return kind(KEY, ssl.SSLCertVerificationError("self-signed"))
    if issubclass(kind, aiohttp.ClientConnectorError):
        return kind(KEY, refused)
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return kind(b"a", b"b", "a", 8000)
    if issubclass(kind, aiohttp.ClientResponseError):
        info = aiohttp.RequestInfo(URL("http://a"), "POST", None, URL("http://a"))
        return kind(info, (), status=500, message="m")
    if issubclass(kind, aiohttp.InvalidURL):
        return kind("http://[")
    return kind("what happened")


def test_there_are_errors_to_map():
    names = {kind.__name__ for kind in AIOHTTP}
    assert {"ClientConnectorError", "ServerDisconnectedError", "ClientPayloadError"} <= names
    assert len(AIOHTTP) >= 20


@pytest.mark.parametrize("kind", AIOHTTP, ids=lambda kind: kind.__name__)
def test_every_error_of_aiohttp_is_mapped(kind):
    ours = mapped(made(kind))
    assert type(ours) in {BackendUnreachable, ConnectionLost, BackendTimeout, InvalidResponse}
    assert str(ours)
    assert issubclass(kind, client._TRANSPORT_ERRORS)


@pytest.mark.parametrize("kind", SYSTEM, ids=lambda kind: kind.__name__)
def test_every_error_of_the_system_is_mapped(kind):
    ours = mapped(kind(1, "what happened"))
    assert type(ours) is (BackendTimeout if issubclass(kind, TimeoutError) else ConnectionLost)
    assert issubclass(kind, client._TRANSPORT_ERRORS)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (made(aiohttp.ClientConnectorError), BackendUnreachable),
        (made(aiohttp.ClientConnectorDNSError), BackendUnreachable),
        (made(aiohttp.ClientConnectorSSLError), BackendUnreachable),
        (made(aiohttp.ClientConnectorCertificateError), BackendUnreachable),
        (aiohttp.ConnectionTimeoutError("connect"), BackendUnreachable),
        (aiohttp.ServerDisconnectedError(), ConnectionLost),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), ConnectionLost),
        (aiohttp.ClientConnectionResetError("closing"), ConnectionLost),
        (aiohttp.ClientPayloadError("not all data"), ConnectionLost),
        (ConnectionResetError(104, "reset"), ConnectionLost),
        (BrokenPipeError(32, "pipe"), ConnectionLost),
        (ssl.SSLError(1, "bad record"), ConnectionLost),
        (aiohttp.SocketTimeoutError("read"), BackendTimeout),
        (aiohttp.ServerTimeoutError("total"), BackendTimeout),
        (TimeoutError(), BackendTimeout),
        (made(aiohttp.ClientResponseError), InvalidResponse),
        (made(aiohttp.TooManyRedirects), InvalidResponse),
        (made(aiohttp.InvalidURL), InvalidResponse),
        (ValueError("chunk size"), InvalidResponse),
    ],
)
def test_which_of_ours_it_is(error, ours):
    found = mapped(error)
    assert type(found) is ours
    assert str(found) == (str(error) or type(error).__name__)


def test_all_is_all():
    public = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) == public
    assert list(errors.__all__) == sorted(errors.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), BackendError)
        assert name in errors.__doc__


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BackendError(), "error"),
        (BackendUnreachable(), "unreachable"),
        (ConnectionLost(), "connection_lost"),
        (BackendTimeout(), "silent"),
        (InvalidResponse(), "bad_answer"),
        (BackendStatusError(429, b""), "rate_limited"),
        (BackendStatusError(400, b""), "status_4xx"),
        (BackendStatusError(404, b""), "status_4xx"),
        (BackendStatusError(500, b""), "status_5xx"),
        (BackendStatusError(503, b"", "5"), "status_5xx"),
    ],
)
def test_a_reason_is_one_of_a_few_words(error, reason):
    assert error.reason == reason


def test_a_refusal_keeps_what_was_said():
    error = BackendStatusError(503, b"busy", "5")
    assert (error.status, error.body, error.retry_after) == (503, b"busy", "5")


# --- an answer's body, over a stand-in for aiohttp's response ----------------------------------


class Body:
    """Gives prepared pieces; an exception among them is raised."""

    def __init__(self, pieces):
        self._pieces = list(pieces)

    def at_eof(self):
        return not self._pieces

    async def readany(self):
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return piece


class Response:
    """What `Answer` uses of a response; notes how the connection was let go."""

    def __init__(self, *pieces, status=200, headers=None):
        self.content = Body(pieces)
        self.status = status
        self.headers = headers or {}
        self.let_go = None

    def release(self):
        self.let_go = "released"

    def close(self):
        self.let_go = "closed"


@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"abc", b"def"], [b"a", b"b", b"c", b"def"], []])
async def test_a_body_is_read_whole(pieces):
    assert await BackendResponse(Response(*pieces)).read_body(6) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [[b"abcdef"], [b"abc", b"def"], [b"abcdef", b"g"]])
async def test_a_body_over_the_limit_is_refused(pieces):
    with pytest.raises(InvalidResponse, match="over 5 bytes"):
        await BackendResponse(Response(*pieces)).read_body(5)


@pytest.mark.parametrize("error", [made(kind) for kind in AIOHTTP] + [TimeoutError(), OSError(5)])
async def test_a_body_that_breaks_raises_ours(error):
    answer = BackendResponse(Response(b"abc", error, b"never"))
    with pytest.raises(BackendError) as caught:
        await answer.read_body(100)
    assert type(caught.value) is type(mapped(error))
    assert caught.value.__cause__ is error


async def test_a_whole_answers_connection_is_kept_and_another_closed():
    whole = Response(b"abc")
    answer = BackendResponse(whole)
    await answer.read_body(10)
    answer.close()
    assert whole.let_go == "released"
    cut = Response(b"abc", b"def")
    answer = BackendResponse(cut)
    await answer.read_chunk()
    answer.close()
    assert cut.let_go == "closed"


async def test_the_end_behind_the_last_event_is_read():
    response = Response(b"data: [DONE]", b"\n\n")
    answer = BackendResponse(response)
    await answer.read_chunk()
    await answer.finish_reading()
    assert response.let_go == "released"
    broken = Response(b"data", ConnectionResetError(), b"x")
    await BackendResponse(broken).finish_reading()
    assert broken.let_go == "closed"


def test_headers_and_status():
    answer = BackendResponse(Response(status=503, headers={"Retry-After": "5"}))
    assert (answer.status, answer.get_header("Retry-After"), answer.get_header("X")) == (
        503,
        "5",
        None,
    )
