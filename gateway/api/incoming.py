"""The head and body of a request that carries JSON, read from ASGI with every limit applied."""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Iterator

from litestar.types import HTTPRequestEvent, HTTPScope, Receive, ReceiveMessage
from msgspec import Struct

from gateway.api.body_decoding import CODINGS, decode_body
from gateway.service.byte_budget import HeldBytes
from gateway.service.client import headers as names
from gateway.service.client.errors import (
    BadRequest,
    BodyTimeout,
    MethodNotAllowed,
    OverCapacity,
    TooLarge,
    UnsupportedEncoding,
)
from gateway.service.request.caller import Caller
from gateway.service.request.steering import HEADER_PREFIX, find_header_error
from gateway.telemetry.request_stages import CallerIdentity
from gateway.telemetry.trace_context import TRACE_HEADERS, TraceContext, parse_trace_context

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_REQUEST_ID = names.REQUEST_ID.encode()
_LOAD_FORMAT = names.LOAD_FORMAT.encode()
_READ_TIMEOUT = names.READ_TIMEOUT.encode()
_TAKEN = frozenset({_REQUEST_ID, _LOAD_FORMAT, _READ_TIMEOUT, b"content-length", b"expect"})
_READ = _TAKEN | {b"content-encoding", *TRACE_HEADERS}
_MOST_FORMAT = 32
_IDENTITY = (b"", b"identity")
# Proxies send back what an answer carried.
_ECHOED = frozenset(name.encode() for name in names.RESPONSE.keys() - names.REQUEST.keys())


class ClientDisconnected(Exception):
    """The client closed while its body was still coming."""


class RequestHead(Struct):
    """What a request's head says; `error` is what is wrong with it, for after the id is known."""

    request_id: str
    steering: dict[bytes, bytes]
    length: int | None
    expects_continue: bool
    error: BadRequest | None
    trace: TraceContext | None
    coding: str | None = None
    """How the body is compressed, if it is."""
    load_format: str = ""
    read_timeout: bytes = b""
    """How many seconds the client waits for something to read, as it says."""
    caller: Caller | None = None

    @property
    def identity(self) -> CallerIdentity | None:
        """The public names of who asks; None where there are no keys."""
        return None if self.caller is None else self.caller.identity


def read_head(scope: HTTPScope, *, method: str = "POST") -> RequestHead:
    """Read the headers that matter, in one pass."""
    taken: dict[bytes, bytes] = {}
    steering: dict[bytes, bytes] = {}
    coding: str | None = None
    error: BadRequest | None = None
    context: list[tuple[bytes, bytes]] = []
    for name, value in scope["headers"]:
        if name.startswith(HEADER_PREFIX):
            error = _take_steering(steering, name, value) or error
        elif name not in _READ:
            continue  # most: a look-up for each, and no more
        elif name in _TAKEN:
            taken[name] = value
        elif name == b"content-encoding" and (named := value.strip().lower()) not in _IDENTITY:
            coding = CODINGS.get(named) if coding is None else None
            if coding is None:
                error = UnsupportedEncoding("the body's coding must be gzip, deflate or zstd")
        elif name in TRACE_HEADERS:
            context.append((name, value))
    if scope["method"] != method:
        error = MethodNotAllowed(f"use {method} here")
    length = taken.get(b"content-length", b"")
    return RequestHead(
        _accept_or_make_id(taken.get(_REQUEST_ID, b"")),
        steering,
        int(length) if length.isdigit() else None,
        b"expect" in taken,
        error,
        parse_trace_context(context) if context else None,
        coding,
        taken.get(_LOAD_FORMAT, b"")[:_MOST_FORMAT].decode("latin-1"),
        taken.get(_READ_TIMEOUT, b""),
    )


def _take_steering(steering: dict[bytes, bytes], name: bytes, value: bytes) -> BadRequest | None:
    """Note a header of the gateway's own; return what is wrong with it."""
    if name in _ECHOED:
        return None
    shown = name.decode("latin-1")
    if name in steering:
        return BadRequest(f"{shown}: is given more than once", param=shown)
    steering[name] = value.strip()
    return find_header_error(shown)


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's own id if it is sane, else a new one."""
    return _accept_or_make_id(next((value for name, value in headers if name == _REQUEST_ID), b""))


def _make_ids() -> Iterator[str]:
    """Make ids for ever, drawing the randomness of many at once."""
    while True:
        drawn = secrets.token_hex(12 * 256)
        for start in range(0, len(drawn), 24):
            yield f"req_{drawn[start : start + 24]}"


_fresh_ids = _make_ids()


def _accept_or_make_id(given: bytes) -> str:
    return given.decode() if _SANE_ID.fullmatch(given) else next(_fresh_ids)


async def read_body(
    head: RequestHead,
    receive: Receive,
    *,
    limit: int,
    seconds: float,
    ready: bool = False,
    held: HeldBytes | None = None,
) -> bytes:
    """Read a body, decoded; `ready` says that all of it is here, so that no deadline is needed.

    `held` is charged with its bytes; `limit` counts for it as it came and as it is decoded. Raises
    BadRequest (413, 408 among them), OverCapacity and ClientDisconnected.
    """
    body = await _read_raw_body(head, receive, limit=limit, seconds=seconds, ready=ready, held=held)
    if head.coding is None:
        return body
    decoded = await decode_body(body, head.coding, limit)
    if held is not None:
        held.hold(len(decoded))
    return decoded


async def _read_raw_body(
    head: RequestHead,
    receive: Receive,
    *,
    limit: int,
    seconds: float,
    ready: bool,
    held: HeldBytes | None,
) -> bytes:
    if head.error is not None:
        raise head.error
    if head.length is not None:
        await _admit_length(head, head.length, receive, limit=limit, seconds=seconds, held=held)
        held = None
    message = _check_message(await receive()) if ready else await _receive_message(receive, seconds)
    if not message.get("more_body"):
        body: bytes = message["body"]
        if len(body) > limit:
            raise TooLarge(f"the body is over {limit} bytes")
        if held is not None:
            held.hold(len(body))
        return body
    pieces = [message["body"]]
    size = len(message["body"])
    deadline = time.monotonic() + seconds
    while message.get("more_body"):
        message = await _receive_message(receive, deadline - time.monotonic())
        size += len(message["body"])
        if size > limit:
            if message.get("more_body"):
                await _discard_body(head, receive, limit=limit, seconds=seconds)
            raise TooLarge(f"the body is over {limit} bytes")
        if held is not None:
            held.hold(len(message["body"]))
        pieces.append(message["body"])
    whole = b"".join(pieces)
    pieces.clear()
    return whole


async def _admit_length(
    head: RequestHead,
    length: int,
    receive: Receive,
    *,
    limit: int,
    seconds: float,
    held: HeldBytes | None,
) -> None:
    """Refuse a body by its announced length, all of it before a byte is kept.

    Raises TooLarge or OverCapacity: halves of many bodies would fill the budget and be of no use.
    """
    if length > limit:
        await _discard_body(head, receive, limit=limit, seconds=seconds)
        raise TooLarge(f"the body is {length} bytes; the limit is {limit}")
    if held is not None:
        try:
            held.hold(length)
        except OverCapacity:
            await _discard_body(head, receive, limit=limit, seconds=seconds)
            raise


async def _receive_message(receive: Receive, seconds: float) -> HTTPRequestEvent:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise BodyTimeout("the body did not come in time") from None
    return _check_message(message)


def _check_message(message: ReceiveMessage) -> HTTPRequestEvent:
    if message["type"] != "http.request":
        raise ClientDisconnected
    return message


async def _discard_body(head: RequestHead, receive: Receive, *, limit: int, seconds: float) -> None:
    """Read on for a while: a client still sending would meet a reset instead of the answer."""
    if head.expects_continue:
        return
    left = limit
    deadline = time.monotonic() + seconds
    try:
        while left > 0:
            message = await _receive_message(receive, deadline - time.monotonic())
            left -= len(message["body"])
            if not message.get("more_body"):
                return
    except BodyTimeout:
        return
