"""The client to backends over real sockets, under both event loops; a server for each fault."""

import asyncio
import contextlib
import functools
import inspect
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
import uvloop

from backends.client import BackendClient
from backends.errors import (
    BackendError,
    BackendTimeout,
    BackendUnreachable,
    ConnectionLost,
    InvalidResponse,
    ResponseTooLarge,
)
from backends.http import pool as pools
from backends.http.url import TlsFiles, parse_request_url
from tests.integration.harness import until
from tests.integration.scripted import Raw, request, response

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
NEVER, ALWAYS = 0.0, 3600.0
"""How long after sending a close counts as met: for tests that must not depend on speed."""


def on_both_loops(test):
    """Run a coroutine function as a test under asyncio's loop and under uvloop's."""

    async def bounded(given):
        async with asyncio.timeout(60):
            await test(**given)

    @pytest.mark.parametrize("loop", LOOPS)
    def run(loop, **given):
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(bounded(given))

    # pytest is to see the parameters of the test and `loop` beside them.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("loop", *inspect.signature(test).parameters)
    wrapped = functools.wraps(test)(run)
    del wrapped.__wrapped__
    wrapped.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    return wrapped


@contextlib.asynccontextmanager
async def talking_to(talk, path="/x", **options):
    """A client, a server that `talk`s, and its address."""
    options = {"connect_seconds": 5.0} | options
    async with Raw(talk) as server, BackendClient(**options) as client:
        yield client, server, parse_request_url(server.url + path)


def answering(*answers, closes=False):
    """A talk that gives one raw answer after another to whatever is asked."""

    async def talk(reader, writer):
        for answer in answers:
            await request(reader)
            writer.write(answer)
            await writer.drain()
        if not closes:
            await reader.read()

    return talk


async def ask(client, url, body=b"{}", limit=1 << 30):
    answer = await client.post(url, body, {})
    try:
        return answer.status, await answer.read_body(limit)
    finally:
        answer.close()


@on_both_loops
async def test_answers_come_over_one_connection():
    async def talk(reader, writer):
        while True:
            line, body = await request(reader)
            assert line == "POST /x HTTP/1.1"
            writer.write(response(body))

    async with talking_to(talk) as (client, server, url):
        for n in range(20):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
        assert server.connections == 1
        assert client.busy == 0


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@on_both_loops
async def test_an_answer_that_comes_byte_by_byte(framing):
    raw = {
        "length": response(b"hello"),
        "chunked": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\nhello",
    }[framing]

    async def talk(reader, writer):
        await request(reader)
        for byte in raw:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with talking_to(talk) as (client, _, url):
        assert await ask(client, url) == (200, b"hello")


# --- kept connections -------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
@on_both_loops
async def test_a_second_answer_is_given_to_nobody(apart):
    strays = 0

    async def talk(reader, writer):
        nonlocal strays
        _, body = await request(reader)
        writer.write(response(body) if apart else response(body) + response(b"stray"))
        if apart:
            await asyncio.sleep(0.02)
            writer.write(response(b"stray"))
        strays += 1
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        for n in range(5):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
            await until(lambda n=n: strays == n + 1)
            # The stray is in the kernel, and the loop may not have had a turn to read it.
            await until(lambda: client.busy == 0)
            if apart:
                await asyncio.sleep(0.02)
        assert server.connections == 5


@on_both_loops
async def test_unread_bytes_are_seen_before_the_loop_reads_them():
    async def talk(reader, writer):
        _, body = await request(reader)
        writer.write(response(body))
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        await ask(client, url)
        pool = next(iter(client._pools.values()))
        (kept,) = pool._idle
        # What the server writes arrives, but the loop gets no turn to read it.
        peer = socket.socket(fileno=socket.dup(_other_end(server, kept)))
        with peer:
            peer.setblocking(True)
            peer.sendall(b"stray")
            time.sleep(0.05)  # noqa: ASYNC251 - the loop must not run
            assert not kept.clean
        assert await ask(client, url, b"own") == (200, b"own")
        assert server.connections == 2


def _other_end(server, connection):
    """Return the server's descriptor of a connection."""
    mine = connection._socket.getsockname()
    for writer in server.writers:
        sock = writer.get_extra_info("socket")
        if sock.getpeername() == mine:
            return sock.fileno()
    raise AssertionError("the server has no such connection")


@on_both_loops
async def test_a_close_that_met_a_request_costs_one_more_sending_and_no_attempt():
    async def talk(reader, writer):
        _, body = await request(reader)
        writer.write(response(body))
        await request(reader)

    async with talking_to(talk, closed_at_once_seconds=ALWAYS) as (client, server, url):
        for n in range(6):
            assert await ask(client, url, b"%d" % n) == (200, b"%d" % n)
        assert server.connections == 6


@on_both_loops
async def test_a_request_is_sent_twice_at_most():
    sent = 0

    async def talk(reader, writer):
        nonlocal sent
        _, body = await request(reader)
        if body == b"poison":
            sent += 1
            return
        writer.write(response(body))
        _, body = await request(reader)
        sent += body == b"poison"

    async with talking_to(talk, closed_at_once_seconds=ALWAYS) as (client, _, url):
        await asyncio.gather(*(ask(client, url) for _ in range(8)))
        with pytest.raises(ConnectionLost):
            await ask(client, url, b"poison")
        assert sent == 2


@pytest.mark.parametrize("how", ["later", "after a byte", "on a new connection"])
@on_both_loops
async def test_what_was_worked_on_is_not_sent_again(how):
    sent = 0

    async def talk(reader, writer):
        nonlocal sent
        while True:
            _, body = await request(reader)
            if body == b"poison":
                sent += 1
                if how == "after a byte":
                    writer.write(b"H")
                    await writer.drain()
                return
            writer.write(response(body))

    at_once = NEVER if how == "later" else ALWAYS
    async with talking_to(talk, closed_at_once_seconds=at_once) as (client, _, url):
        if how != "on a new connection":
            await asyncio.gather(*(ask(client, url) for _ in range(8)))
        with pytest.raises(ConnectionLost):
            await ask(client, url, b"poison")
        assert sent == 1


@on_both_loops
async def test_an_idle_connection_is_closed_in_time(monkeypatch):
    monkeypatch.setattr(pools, "KEEPALIVE_SECONDS", 0.05)
    monkeypatch.setattr(pools, "_SWEEP_SECONDS", 0.02)
    ended = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(response(b"hi"))
        assert await reader.read() == b""
        ended.set()

    async with talking_to(talk) as (client, _, url):
        await ask(client, url)
        await ended.wait()
        assert not next(iter(client._pools.values()))._open


@pytest.mark.parametrize("ends", [True, False])
@on_both_loops
async def test_the_bytes_behind_the_last_event_are_read_for_nobody(ends):
    go = asyncio.Event()
    closed = asyncio.Event()

    async def talk(reader, writer):
        while True:
            await request(reader)
            writer.write(CHUNKED + b"2\r\nhi\r\n")
            await go.wait()
            if ends:
                writer.write(b"0\r\n\r\n")
            elif not await reader.read(1):
                closed.set()
                return

    async with talking_to(talk) as (client, server, url):
        answer = await client.post(url, b"{}", {})
        assert await answer.read_chunk() == b"hi"
        answer.finish_reading()
        answer.close()
        go.set()
        if ends:
            await until(lambda: client.busy == 0)
            answer = await client.post(url, b"{}", {})
            answer.close()
            assert server.connections == 1
        else:
            await closed.wait()
            assert client.busy == 0


# --- faults -----------------------------------------------------------------------------------


@on_both_loops
async def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = parse_request_url(f"http://127.0.0.1:{taken.getsockname()[1]}/")
        async with BackendClient(connect_seconds=5.0) as client:
            with pytest.raises(BackendUnreachable, match="no connection to 127"):
                await client.post(url, b"", {})
            assert client.busy == 0


@on_both_loops
async def test_no_such_name():
    async with BackendClient(connect_seconds=20.0) as client:
        with pytest.raises(BackendUnreachable, match=r"nobody\.invalid"):
            await client.post(parse_request_url("http://nobody.invalid/"), b"", {})


@on_both_loops
async def test_a_handshake_that_stalls_is_no_connection():
    async def talk(reader, _):
        await reader.read()

    async with talking_to(talk, connect_seconds=0.2) as (client, server, _):
        url = parse_request_url(server.url.replace("http:", "https:"))
        with pytest.raises(BackendUnreachable, match=r"within 0\.2 s"):
            await client.post(url, b"", {})
        await until(lambda: not server.writers, "the server to see the close")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\ncontent-le", ConnectionLost),
        (b"<html>no</html>", InvalidResponse),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", InvalidResponse),
        (response(b"hello")[:-1], ConnectionLost),
        (CHUNKED + b"5\r\nhel", ConnectionLost),
        (CHUNKED + b"5\r\nhello\r\n", ConnectionLost),
        (CHUNKED + b"5\r\nhello\r\nzz\r\n", InvalidResponse),
    ],
)
@on_both_loops
async def test_an_answer_that_breaks(raw, error):
    async with talking_to(answering(raw, closes=True)) as (client, server, url):
        with pytest.raises(error):
            await ask(client, url)
        assert client.busy == 0
        assert server.connections == 1


@on_both_loops
async def test_what_came_before_a_break_is_read_first():
    go = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await go.wait()

    async with talking_to(talk) as (client, _, url):
        answer = await client.post(url, b"{}", {})
        go.set()
        await until(lambda: answer._exchange.error is not None)
        assert await answer.read_chunk() == b"hello"
        with pytest.raises(ConnectionLost, match="within the answer"):
            await answer.read_chunk()
        answer.close()


@pytest.mark.parametrize("declared", [True, False])
@on_both_loops
async def test_an_answer_over_the_limit(declared):
    raw = response(b"x" * 100) if declared else CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"
    async with talking_to(answering(raw, raw)) as (client, _, url):
        with pytest.raises(ResponseTooLarge, match="over 99 bytes"):
            await ask(client, url, limit=99)
    async with talking_to(answering(raw)) as (client, _, url):
        assert await ask(client, url, limit=100) == (200, b"x" * 100)


@on_both_loops
async def test_a_probe_does_not_wait_for_ever():
    async with talking_to(answering(b"HTTP/1.1 200 OK\r\n")) as (client, _, url):
        with pytest.raises(BackendTimeout, match=r"within 0\.05 s"):
            await client.get(url, {}, seconds=0.05)
        assert client.busy == 0


@pytest.mark.parametrize("when", ["head", "body"])
@on_both_loops
async def test_giving_up_is_seen_by_the_backend(when):
    asked, left = asyncio.Event(), asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        if when == "body":
            writer.write(CHUNKED + b"2\r\nhi\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        left.set()

    async with talking_to(talk) as (client, _, url):
        task = asyncio.create_task(ask(client, url))
        await asked.wait()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await left.wait()
        assert client.busy == 0


# --- back-pressure ----------------------------------------------------------------------------


@on_both_loops
async def test_an_answer_that_nobody_reads_is_not_hoarded():
    written = 0

    async def talk(reader, writer):
        nonlocal written
        await request(reader)
        writer.write(CHUNKED)
        for _ in range(400):
            writer.write(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
            await writer.drain()
            written += 0x40000
        writer.write(b"0\r\n\r\n")

    async with talking_to(talk) as (client, _, url):
        answer = await client.post(url, b"{}", {})
        last = -1
        while written > last:  # until the server is held up
            last = written
            await asyncio.sleep(0.3)
        assert answer._exchange.held < 2 << 20
        assert written < 400 * 0x40000
        got = 0
        while piece := await answer.read_chunk():
            got += len(piece)
        assert got == 400 * 0x40000
        answer.close()


@on_both_loops
async def test_a_large_body_waits_for_a_server_that_is_slow_to_read():
    body = bytes(range(256)) * (1 << 16)
    go = asyncio.Event()

    async def talk(reader, writer):
        await go.wait()
        _, got = await request(reader)
        assert got == body
        writer.write(response(b"whole"))
        await request(reader)
        writer.write(response(b"again"))
        await reader.read()

    async with talking_to(talk) as (client, server, url):
        task = asyncio.create_task(ask(client, url, body))
        await until(lambda: server.connections == 1)
        await asyncio.sleep(0.1)
        assert not task.done()
        go.set()
        assert await task == (200, b"whole")
        assert await ask(client, url) == (200, b"again")
        assert server.connections == 1


@on_both_loops
async def test_an_answer_to_a_body_that_was_not_read_ends_the_connection():
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

    async def talk(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await writer.drain()
        await asyncio.sleep(30)

    async with talking_to(talk) as (client, server, url):
        for n in range(2):
            assert await ask(client, url, b"x" * (64 << 20)) == (413, b"no")
            assert server.connections == n + 1


# --- turns ------------------------------------------------------------------------------------


@on_both_loops
async def test_beyond_the_bound_requests_take_turns():
    order, held = [], 0

    async def talk(reader, writer):
        nonlocal held
        while True:
            line, body = await request(reader)
            if line.startswith("GET"):
                writer.write(response())
                continue
            held += 1
            order.append(body)
            assert held <= 2
            await asyncio.sleep(0.01)
            held -= 1
            writer.write(response(body))

    async with talking_to(talk, most_connections=2) as (client, server, url):
        tasks = []
        for n in range(12):
            tasks.append(asyncio.create_task(ask(client, url, b"%d" % n)))
            await asyncio.sleep(0)
        tasks[4].cancel()
        # A probe is not to wait for its turn.
        assert await client.get(url, {}, seconds=10) == (200, b"")
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[4], asyncio.CancelledError)
        rest = [b"%d" % n for n in range(12) if n != 4]
        assert [body for _, body in (one for one in done if isinstance(one, tuple))] == rest
        assert sorted(order[:2]) == [b"0", b"1"]
        # Two at a time they may swap places with their neighbour and no more.
        assert all(abs(order.index(body) - place) <= 1 for place, body in enumerate(rest))
        assert server.connections <= 3
        assert client.busy == 0


@on_both_loops
async def test_whoever_leaves_the_queue_gives_up_his_turn_to_the_next():
    go = asyncio.Event()

    async def talk(reader, writer):
        while True:
            _, body = await request(reader)
            await go.wait()
            writer.write(response(body))

    async with talking_to(talk, most_connections=1) as (client, _, url):
        tasks = [asyncio.create_task(ask(client, url, b"%d" % n)) for n in range(4)]
        await until(lambda: client.busy == 1)
        pool = next(iter(client._pools.values()))
        await until(lambda: len(pool._turns) == 3)
        granted = pool._turns[0]
        granted.add_done_callback(lambda _: tasks[1].cancel())
        go.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, BaseException) for one in done] == [False, True, False, False]
        assert (client.busy, pool._granted) == (0, 0)


# --- names and addresses ----------------------------------------------------------------------


def resolving(monkeypatch, *answers):
    """Have names resolved to one answer after another, the last one for ever; note the asking."""
    left = list(answers)
    asked = []

    async def getaddrinfo(_, host, port, **__):
        if host.endswith(".test"):
            asked.append(host)
            found = left.pop(0) if len(left) > 1 else left[0]
        else:
            found = [host]  # uvloop asks even for an address, before it connects
        if isinstance(found, Exception):
            raise found
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in found
        ]

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", getaddrinfo)
    return asked


def echoing(name):
    """A talk that answers everything with its own name."""

    async def talk(reader, writer):
        while True:
            await request(reader)
            writer.write(response(name))

    return talk


@on_both_loops
async def test_ipv6():
    async with (
        Raw(echoing(b"six"), host="::1") as server,
        BackendClient(connect_seconds=5.0) as client,
    ):
        assert await ask(client, parse_request_url(server.url)) == (200, b"six")


@on_both_loops
async def test_an_address_that_refuses_is_passed_over(monkeypatch):
    async with talking_to(echoing(b"four")) as (client, server, _):
        asked = resolving(monkeypatch, ["::1", "127.0.0.1"])
        url = parse_request_url(server.url.replace("127.0.0.1", "both.test"))
        assert await ask(client, url) == (200, b"four")
        assert asked == ["both.test"]


@on_both_loops
async def test_a_name_is_asked_for_once_by_many(monkeypatch):
    async with talking_to(echoing(b"hi")) as (client, server, _):
        asked = resolving(monkeypatch, ["127.0.0.1"])
        url = parse_request_url(server.url.replace("127.0.0.1", "one.test"))
        await asyncio.gather(*(ask(client, url) for _ in range(20)))
        assert asked == ["one.test"]


@on_both_loops
async def test_connections_follow_a_name_whose_address_changes(monkeypatch):
    async with talking_to(echoing(b"old")) as (client, server, _):
        port = int(server.url.rpartition(":")[2])
        async with Raw(echoing(b"new"), host="127.0.0.2", port=port) as other:
            asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"], OSError("no DNS"))
            url = parse_request_url(f"http://moving.test:{port}/")
            assert await ask(client, url) == (200, b"old")
            pool = next(iter(client._pools.values()))
            assert pool.idle == 1
            pool._resolver.expire()
            # The kept connection serves this one; meanwhile the name is looked up again.
            assert await ask(client, url) == (200, b"old")
            await until(lambda: len(asked) == 2 and pool.idle == 0, "the change to be seen")
            assert await ask(client, url) == (200, b"new")
            assert other.connections == 1
            # Without a DNS the last answer stays.
            pool._resolver.expire()
            await asyncio.gather(*(ask(client, url) for _ in range(3)))
            await until(lambda: len(asked) == 3)
            assert await ask(client, url) == (200, b"new")


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A CA with a server's certificate and a client's, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-days", "2", *signed, "-in", f"{name}.csr", "-out", f"{name}.pem")
    return folder


@contextlib.asynccontextmanager
async def secure(authority, talk, *, wants_certificate=False):
    """A TLS server, maybe one that wants to see a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_NONE
    async with Raw(talk, ssl=context) as server, BackendClient(connect_seconds=5.0) as client:
        yield client, server


def files(authority, *, certificate=False):
    pair = [str(authority / "client.pem"), str(authority / "client.key")] if certificate else []
    return TlsFiles(str(authority / "ca.pem"), *pair)


@pytest.mark.parametrize("certificate", [False, True])
@on_both_loops
async def test_tls(authority, certificate):
    async with secure(authority, echoing(b"hi"), wants_certificate=certificate) as (client, server):
        url = parse_request_url(server.url, files(authority, certificate=certificate))
        for _ in range(5):
            assert await ask(client, url, b"x" * (1 << 20)) == (200, b"hi")
        assert server.connections == 1


@on_both_loops
async def test_a_certificate_that_nobody_vouches_for(authority):
    async with secure(authority, echoing(b"hi")) as (client, server):
        with pytest.raises(BackendUnreachable, match=r"(?i)certificate"):
            await ask(client, parse_request_url(server.url))
        assert client.busy == 0


@on_both_loops
async def test_a_server_that_wants_a_certificate(authority):
    async with secure(authority, echoing(b"hi"), wants_certificate=True) as (client, server):
        with pytest.raises(BackendError):
            await ask(client, parse_request_url(server.url, files(authority)))
        assert client.busy == 0


@on_both_loops
async def test_leaving_a_tls_answer_closes_it(authority):
    left = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(CHUNKED + b"2\r\nhi\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()

    async with secure(authority, talk) as (client, server):
        answer = await client.post(parse_request_url(server.url, files(authority)), b"{}", {})
        assert await answer.read_chunk() == b"hi"
        answer.close()
        await left.wait()


# --- what is left behind ----------------------------------------------------------------------


def sockets():
    """Count this process's sockets; 0 where the system does not tell."""
    found = 0
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


@on_both_loops
async def test_nothing_is_left_behind():
    async def talk(reader, writer):
        while True:
            _, body = await request(reader)
            if body == b"1":
                return
            writer.write(response(body) if body == b"0" else CHUNKED + b"2\r\nhi\r\n")

    before = sockets()
    async with talking_to(talk) as (client, _, url):
        for n in range(30):
            with contextlib.suppress(BackendError):
                answer = await client.post(url, b"%d" % (n % 3), {})
                answer.close()
        assert client.busy == 0
    await until(lambda: sockets() == before, "sockets to be closed")
    assert asyncio.all_tasks() == {asyncio.current_task()}
