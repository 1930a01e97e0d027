"""Backends that do what a test scripts, where the simulator cannot show or do it."""

import asyncio
import json
from typing import Any, NamedTuple

from aiohttp import web


class Seen(NamedTuple):
    """One request as a backend got it."""

    path: str
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def chat(name="phi-3-mini", content="Hi", **fields):
    """A whole chat completion."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": name,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    } | fields


def delta(name="phi-3-mini", **fields):
    """One event of a streamed chat completion, in the compact JSON that vLLM writes."""
    finish = fields.pop("finish_reason", None)
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": name,
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }
    return event(chunk)


def usage(name="phi-3-mini", prompt_tokens=5, completion_tokens=2):
    """The event that `include_usage` asks for."""
    counts = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": name,
        "choices": [],
        "usage": counts,
    }
    return event(chunk)


def event(value):
    """One server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


DONE_EVENT = b"data: [DONE]\n\n"


async def stream(request, *pieces, whole=True):
    """Answer with a stream, each piece a write of its own, cut off behind them if not `whole`."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    if whole:
        await response.write_eof()
    else:
        request.transport.abort()
    return response


async def plain(request, seen):
    """Answer any request properly."""
    name = seen.json["model"]
    if not seen.json.get("stream"):
        return web.json_response(chat(name))
    words = [delta(name, role="assistant", content=""), delta(name, content="Hi")]
    return await stream(request, *words, delta(name, finish_reason="stop"), usage(name), DONE_EVENT)


class Recorder:
    """A server that keeps every request under /v1; `answer` makes the answers."""

    def __init__(self, answer=None):
        self.seen: list[Seen] = []
        self.answer = answer or plain
        self.url = ""
        self._runner: web.AppRunner

    async def __aenter__(self):
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._health)
        app.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _health(self, _):
        return web.Response()

    async def _take(self, request):
        seen = Seen(request.path, request.headers, await request.read())
        self.seen.append(seen)
        return await self.answer(request, seen)


class Raw:
    """A server over bare sockets: `talk(reader, writer)` is run for every connection."""

    def __init__(self, talk, *, host="127.0.0.1", port=0, ssl=None):
        self._talk = talk
        self._where = {"host": host, "port": port, "ssl": ssl}
        self._tasks: set[asyncio.Task] = set()
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self._server: asyncio.Server

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, **self._where, backlog=1024)
        host, port, *_ = self._server.sockets[0].getsockname()
        scheme = "https" if self._where["ssl"] else "http"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        # A connection that has just come has its task, which has yet to begin.
        for _ in range(3):
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        self.writers.add(writer)
        try:
            await self._talk(reader, writer)
            if not writer.is_closing():
                # The abort below would drop what is still to be sent.
                writer.transport.set_write_buffer_limits(0)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.writers.discard(writer)
            writer.transport.abort()


async def request(reader):
    """Read one request: its request line and its body. Raises IncompleteReadError at the end."""
    head = await reader.readuntil(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    length = 0
    for header in rest.lower().split(b"\r\n"):
        if header.startswith(b"content-length:"):
            length = int(header.split(b":")[1])
    return line.decode(), await reader.readexactly(length)


def response(body=b"", content_type="application/json"):
    """A keep-alive answer."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
