"""The client to backends: names and their addresses, under both event loops."""

import asyncio
import socket

from backends.client import BackendClient
from backends.http.url import parse_request_url
from tests.integration.backend_talks import ask, echoing, on_both_loops, talking_to
from tests.integration.harness import until
from tests.integration.scripted import Raw


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
