"""The client's side of a request: ASGI messages out, with the API's error shape where it breaks."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from gateway.service.client.api_error import ApiError, Header
from gateway.service.client.error_shapes import OPENAI_ERRORS, ErrorShape

JSON: Header = (b"content-type", b"application/json")
SSE: Sequence[Header] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx would otherwise hold a stream back until its buffer is full.
    (b"x-accel-buffering", b"no"),
)


class PieceWriter(Protocol):
    """Writes pieces of a begun answer to its connection at once, without waiting."""

    on_drained: Callable[[], None] | None
    """Called when the client reads again after `blocked`."""

    @property
    def blocked(self) -> bool:
        """Whether the client's side is full."""

    def write(self, piece: bytes) -> None:
        """Send a piece of the body, which is not empty."""

    def forget_head(self) -> None:
        """Let go of the headers that the client sent; its answer has begun."""

    def write_whole(
        self, send: object, status: int, headers: Iterable[Header], body: bytes
    ) -> bool:
        """Send a whole answer at once instead of by `send`; tell whether that could be."""


class ResponseWriter:
    """Sends one answer; `pieces` sends parts of its body without waiting, where the server can.

    `status` is 0 until the head is out, after which errors become frames; `blocked` while the
    client is not reading; `ended` once the last piece is out. `events` is how many events a stream
    has sent, where its API numbers them.
    """

    __slots__ = (
        "_abort", "_request_id", "_send", "_shape", "_waits", "ended", "events", "pieces", "status",
    )  # fmt: skip

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        request_id: str,
        *,
        abort: Callable[[], None] | None = None,
        pieces: PieceWriter | None = None,
        shape: ErrorShape = OPENAI_ERRORS,
    ) -> None:
        self._send = send
        self._shape = shape
        self._abort = abort
        self._request_id = request_id
        self._waits = False
        self.pieces = pieces
        self.status = 0
        self.ended = False
        self.events = 0

    @property
    def blocked(self) -> bool:
        """Whether the client is not reading."""
        return self._waits or (self.pieces is not None and self.pieces.blocked)

    async def start_response(self, status: int, headers: Sequence[Header]) -> None:
        """Send status and headers."""
        await self._start(status, self._build_head(headers))

    async def start_stream(self, status: int, headers: Sequence[Header]) -> None:
        """Send status and headers of what will take long: nothing asks for the client's by then."""
        await self.start_response(status, headers)
        if self.pieces is not None:
            self.pieces.forget_head()

    def _build_head(self, headers: Sequence[Header]) -> list[Header]:
        """Return all headers of an answer."""
        named = self._shape.name_request(self._request_id)
        return [(b"x-request-id", self._request_id.encode()), *named, *headers]

    async def _start(self, status: int, head: list[Header]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, body: bytes) -> None:
        """Send a piece of the body; waits, `blocked`, while the client's side is full."""
        self._waits = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._waits = False

    async def end_response(self, body: bytes = b"") -> None:
        """Send the last piece of the body; waits, `blocked`, while the client's side is full."""
        self._waits = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
        self._waits = False
        self.ended = True

    async def send_unary(
        self,
        status: int,
        body: bytes,
        headers: Sequence[Header] = (),
        content_type: Header = JSON,
    ) -> None:
        """Send a complete answer, in JSON unless told."""
        length = (b"content-length", str(len(body)).encode())
        head = self._build_head([content_type, length, *headers])
        if self.pieces is not None and self.pieces.write_whole(self._send, status, head, body):
            self.status = status
            self.ended = True
            return
        await self._start(status, head)
        await self.end_response(body)

    def abort(self) -> None:
        """Drop the connection: closing would wait for a client that does not read."""
        if self._abort is not None:
            self._abort()

    async def send_error(self, error: ApiError, headers: Sequence[Header] = ()) -> None:
        """Send an error: as an answer, or within a stream as one frame.

        After a frame the body is left without its end, which makes the server close the
        connection: a client that ignores the frame still sees a broken answer.
        """
        if not self.status:
            await self.send_unary(
                error.status,
                self._shape.encode_body(error, self._request_id),
                [*error.build_headers(), *headers],
            )
        else:
            await self.write(self._shape.encode_event(error, self._request_id, self.events))
