"""The one place that knows aiohttp: it sends to a backend and maps every lower error.

Defaults of aiohttp that are changed here, and why: no total timeout (answers take minutes), no
redirects (a backend's address comes from the config only), no decompression (bytes pass as they
come), no cookies, no proxy from the environment, idle connections dropped before vLLM drops them.
"""

import asyncio
import io
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from backends.errors import (
    BackendError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
    ResponseTooLarge,
)

KEEPALIVE_SECONDS = 4.0
"""vLLM closes an idle connection after 5 s; a request sent into that close would be lost."""

_REUSE_GRACE_SECONDS = 0.25
_MAX_UNSPLIT_BYTES = 1 << 20


def map_error(error: BaseException) -> BackendError:
    """Turn an error of aiohttp, asyncio or the socket into ours."""
    text = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return BackendUnreachable(text)
        case TimeoutError():
            return BackendTimeout(text)
        case aiohttp.InvalidURL() | aiohttp.ClientResponseError() | aiohttp.ContentTypeError():
            return InvalidResponse(text)
        case aiohttp.ClientPayloadError() | aiohttp.ClientConnectionError() | OSError():
            return ConnectionLost(text)
        case _:
            return InvalidResponse(text)


_TRANSPORT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError)


class BackendResponse:
    """An answer whose head has come; its body is read in the pieces it arrives in."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content
        self.status = response.status

    def get_header(self, name: str) -> str | None:
        """Return one header's value, or None."""
        return self._response.headers.get(name)

    async def read_chunk(self) -> bytes:
        """Return the bytes that are there, waiting for some; b"" at the end.

        Raises ConnectionLost, Silent or BadAnswer.
        """
        try:
            return await self._content.readany()
        except _TRANSPORT_ERRORS as error:
            raise map_error(error) from error

    async def read_body(self, limit: int) -> bytes:
        """Return the rest of the body. Raises Oversized where it is over `limit` bytes."""
        first = await self.read_chunk()
        pieces = [first]
        size = len(first)
        while size <= limit:
            if self._content.at_eof():
                return first if len(pieces) == 1 else b"".join(pieces)
            piece = await self.read_chunk()
            size += len(piece)
            pieces.append(piece)
        raise ResponseTooLarge(f"the answer is over {limit} bytes")

    def close(self) -> None:
        """Give the connection back if the answer is whole, else close it at once.

        Closing is what makes vLLM abort a request that is still running.
        """
        if self._content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def finish_reading(self) -> None:
        """Read the few bytes behind the last event so that the connection can be used again."""
        if not self._content.at_eof():
            try:
                async with asyncio.timeout(_REUSE_GRACE_SECONDS):
                    while await self._content.readany():
                        pass
            except _TRANSPORT_ERRORS:
                pass
        self.close()


class _StaleConnection(Exception):
    """A kept connection was closed by the other side before it answered."""


class _ReuseTrackingResponse(aiohttp.ClientResponse):
    """A response that knows whether its connection had been used before."""

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        protocol = connection.protocol
        used = getattr(protocol, "joulegate_used", False)
        try:
            return await super().start(connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if used:
                raise _StaleConnection from error
            raise
        finally:
            if protocol is not None and not used:
                protocol.joulegate_used = True  # type: ignore[attr-defined]


class BackendClient:
    """Connections to all backends of one process; open between `async with` and its end."""

    def __init__(self, *, connect_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, ttl_dns_cache=30
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
            response_class=_ReuseTrackingResponse,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> BackendResponse:
        """Send a request and return once the answer's head is there; the caller sets a deadline.

        A kept connection that turns out to have been closed meanwhile is replaced; one made for
        this request is not. Raises Unreachable, ConnectionLost or BadAnswer.
        """
        try:
            while True:
                try:
                    return await self._post_once(url, body, headers)
                except _StaleConnection:
                    continue
        except _TRANSPORT_ERRORS as error:
            raise map_error(error) from error

    async def _post_once(
        self, url: URL, body: bytes, headers: Mapping[str, str]
    ) -> BackendResponse:
        # A large body is written piece by piece, so that no one request holds the event loop.
        data = body if len(body) < _MAX_UNSPLIT_BYTES else io.BytesIO(body)
        return BackendResponse(
            await self._session.post(url, data=data, headers=headers, allow_redirects=False)
        )

    async def get(
        self, url: URL, headers: Mapping[str, str], *, seconds: float, limit: int = 1 << 20
    ) -> tuple[int, bytes]:
        """Return status and body of a small answer. Raises what `post` and `Answer` raise."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        return await self._get_once(url, headers, limit)
                    except _StaleConnection:
                        continue
        except _TRANSPORT_ERRORS as error:
            raise map_error(error) from error

    async def _get_once(
        self, url: URL, headers: Mapping[str, str], limit: int
    ) -> tuple[int, bytes]:
        answer = BackendResponse(
            await self._session.get(url, headers=headers, allow_redirects=False)
        )
        try:
            return answer.status, await answer.read_body(limit)
        finally:
            answer.close()
