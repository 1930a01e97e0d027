"""Every error of the layers below becomes one of ours; nothing else escapes the client."""

import asyncio
import builtins
import inspect
import socket
import ssl

import pytest

from backends import errors
from backends.errors import (
    BackendError,
    BackendStatusError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
)
from backends.http.pool import ConnectionPool
from backends.http.url import parse_request_url


def classes(base, *modules):
    """Yield every subclass of `base` that the modules make public."""
    for module in modules:
        for value in vars(module).values():
            if inspect.isclass(value) and issubclass(value, base):
                yield value


SYSTEM = sorted(set(classes(OSError, builtins, socket, ssl)), key=lambda kind: kind.__name__)


def test_there_are_errors_to_map():
    names = {kind.__name__ for kind in SYSTEM}
    assert {"ConnectionRefusedError", "SSLCertVerificationError", "gaierror"} <= names


@pytest.mark.parametrize("kind", SYSTEM, ids=lambda kind: kind.__name__)
async def test_whatever_connecting_raises_is_unreachable(kind, monkeypatch):
    loop = asyncio.get_running_loop()

    async def sock_connect(*_):
        raise kind(1, "what happened")

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    pool = ConnectionPool(parse_request_url("http://127.0.0.1:9").origin, connect_seconds=5, most=1)
    with pytest.raises(BackendUnreachable, match=r"127\.0\.0\.1:9"):
        await pool.acquire()
    assert pool.busy == 0
    pool.close()


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
    error = BackendStatusError(503, b"busy", 5.0)
    assert (error.status, error.body, error.retry_after_seconds) == (503, b"busy", 5.0)
