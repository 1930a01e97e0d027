"""Connections are accepted in batches, whatever else the loop has to do."""

import asyncio
import contextlib
import errno
import socket

import pytest

from gateway.api import listener as listeners
from gateway.api.listener import ACCEPTED_PER_TURN, BatchServer, new_serving_loop
from tests.integration.harness import until


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    made = 0

    def connection_made(self, transport):
        Echo.made += 1
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


@contextlib.contextmanager
def connected(address, count):
    """Clients whose connections wait to be accepted."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address)) for _ in range(count)]


def serving(test):
    """Run a test with a BatchServer under uvloop's loop and under asyncio's."""

    @pytest.mark.parametrize("make_loop", [new_serving_loop, asyncio.new_event_loop])
    def run(make_loop, monkeypatch):
        async def main():
            monkeypatch.setattr(listeners, "_REST_SECONDS", 0.05)
            Echo.made = 0
            sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
            server = BatchServer(asyncio.get_running_loop(), Echo, sock)
            async with asyncio.timeout(30):
                try:
                    await test(server, sock)
                finally:
                    server.close()
                    sock.close()
                    await server.wait_closed()

        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())

    run.__name__ = test.__name__
    return run


@serving
async def test_a_turn_accepts_what_waits_up_to_a_bound(server, sock):
    server.start(1024)
    with connected(sock.getsockname(), ACCEPTED_PER_TURN + 10):
        # As the loop calls it, once in a turn.
        assert server.accept() == ACCEPTED_PER_TURN
        assert server.accept() == 10
        assert server.accept() == 0
        await until(lambda: Echo.made == ACCEPTED_PER_TURN + 10)


@serving
async def test_connections_work_and_do_not_wait_for_more_to_send(server, sock):
    server.start(16)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()


@serving
async def test_closed_it_accepts_no_more_and_what_there_is_goes_on(server, sock):
    server.start(16)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"a")
    await reader.readexactly(1)
    server.close()
    server.close()
    writer.write(b"b")
    assert await reader.readexactly(1) == b"b"
    writer.close()


@serving
async def test_without_descriptors_it_rests_and_goes_on(server, sock):
    real, failed = sock, []

    class Full:
        """A listener that has no descriptor left once."""

        def accept(self):
            if not failed:
                failed.append(True)
                raise OSError(errno.EMFILE, "Too many open files")
            return real.accept()

        def __getattr__(self, name):
            return getattr(real, name)

    server.start(16)
    server._listener = Full()
    with connected(sock.getsockname(), 1):
        await until(lambda: Echo.made == 1)
    assert failed


def test_the_serving_loop_uses_it():
    async def main():
        loop = asyncio.get_running_loop()
        sock = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(Echo, sock=sock, backlog=16)
        assert isinstance(server, BatchServer)
        server.close()
        sock.close()
        other = await loop.create_server(Echo, "127.0.0.1", 0)
        assert not isinstance(other, BatchServer)
        other.close()
        await other.wait_closed()

    with asyncio.Runner(loop_factory=new_serving_loop) as runner:
        runner.run(main())
