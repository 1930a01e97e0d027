"""A bare relay: one Litestar route over the gateway's own client, which passes bytes on.

`python -m tests.bench.relay PORT ROOT` runs until it is ended. It decides, counts and checks
nothing: what the gateway takes beyond it is what the gateway does.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from litestar import Litestar, asgi, get
from litestar.types import Receive, Scope, Send

from backends.client import BackendClient
from backends.http.url import parse_request_url

_HEADERS = {"Content-Type": "application/json"}


def make_app(root: str) -> Litestar:
    """Make the relay to one server."""
    client = BackendClient(connect_seconds=5.0, most_connections=10_000)
    url = parse_request_url(root + "/v1/chat/completions")

    @asgi("/v1/chat/completions", copy_scope=False)
    async def relay(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - Litestar's
        body, more = b"", True
        while more:
            message: Any = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = await client.post(url, body, _HEADERS)
        try:
            kind = (answer.get_header("Content-Type") or "").encode()
            headers = [(b"content-type", kind)]
            start: Any = {"type": "http.response.start", "status": answer.status}
            if kind.startswith(b"text/event-stream"):
                await send(start | {"headers": headers})
                while piece := await answer.read_chunk():
                    await send(_body(piece, more=True))
                await send(_body(b"", more=False))
            else:
                whole = await answer.read_body(1 << 30)
                headers.append((b"content-length", str(len(whole)).encode()))
                await send(start | {"headers": headers})
                await send(_body(whole, more=False))
        finally:
            answer.close()

    @get("/ready", sync_to_thread=False)
    def ready() -> dict[str, int]:
        return {"inflight": client.busy}

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with client:
            yield

    return Litestar([relay, ready], lifespan=[lifespan], openapi_config=None, logging_config=None)


def _body(piece: bytes, *, more: bool) -> Any:
    return {"type": "http.response.body", "body": piece, "more_body": more}


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop",
        http="httptools", access_log=False, log_level="error",
    )  # fmt: skip
