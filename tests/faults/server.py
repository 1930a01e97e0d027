"""Backends with faults, on raw sockets: one port for each kind; the path says the rest.

A backend's root is `http://127.0.0.1:PORT/SCOPE/CELL/N`. With the scope `all` each attempt meets
the fault, with `first` only a request's first one; the later ones are answered properly.
"""

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections import Counter
from typing import Any, Self

from tests.faults.answer_kinds import BEFORE_READING, REFUSED
from tests.faults.kinds import KINDS
from tests.faults.script import CLOSE, RESET, STALL, Endless, Script
from tests.faults.typed_kinds import read_request

SCOPES = ("all", "first")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"x-request-id: *(([^\r\n]+)-[0-9a-f]+)\r", re.IGNORECASE)


def _name_by_prompt(request: Any) -> str:
    try:
        return f"cell-{request['messages'][-1]['content']}"
    except (KeyError, IndexError, TypeError):
        return ""


class FaultServer:
    """Listens for every kind; `sent` counts how often each request id was sent to anyone."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self.sent: Counter[str] = Counter()
        self.ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._refusing: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for kind in self.kinds:
            if kind == REFUSED:
                self._refusing = socket.socket()
                self._refusing.bind(("127.0.0.1", 0))
                self.ports[kind] = self._refusing.getsockname()[1]
                continue

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: str = kind
            ) -> None:
                await self._serve(kind, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
            self._servers.append(server)
            self.ports[kind] = server.sockets[0].getsockname()[1]
        proper = self.ports["proper"]
        for kind in self.kinds:
            self.ports.setdefault(kind, proper)
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        if self._refusing is not None:
            self._refusing.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def roots(self, kind: str, scope: str, count: int) -> list[str]:
        """Return the roots of a cell's backends."""
        place = self.kinds.index(kind)
        return [
            f"http://127.0.0.1:{self._port(kind, scope, number)}/{scope}/{place}/{number}"
            for number in range(count)
        ]

    def _port(self, kind: str, scope: str, number: int) -> int:
        # What happens before a request is read cannot know whose first attempt it is.
        unknowing = kind == REFUSED or kind in BEFORE_READING
        return self.ports["proper" if unknowing and scope == "first" and number else kind]

    async def _serve(
        self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if kind in BEFORE_READING:
                await self._play([BEFORE_READING[kind]], reader, writer)
                return
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if head.startswith(b"GET"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                if not await self._play(self._script(kind, head, body), reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def _script(self, kind: str, head: bytes, body: bytes) -> Script:
        request = json.loads(body)
        found = _ID.search(head)
        # Who forwards no id, or makes one of its own, is known by what was asked.
        sent_as, request_id = "", _name_by_prompt(request)
        if found:
            sent_as, request_id = (part.decode() for part in found.groups())
        self.sent[request_id] += 1
        asked = read_request(head.split(b" ", 2)[1].decode(), request, sent_as)
        scope = head.split(b"/", 2)[1].decode()
        proper = scope == "first" and self.sent[request_id] > 1
        return KINDS["proper" if proper else kind](asked)

    async def _play(
        self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Do what a script says; tell whether the connection goes on."""
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                if len(step) == 1:
                    await asyncio.sleep(0)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Endless):
                while True:
                    writer.write(step.piece)
                    await writer.drain()
                    await asyncio.sleep(step.pause)
            elif step is STALL:
                await reader.read()
                return False
            elif step is RESET:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            elif step is CLOSE:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                return False
        return True
