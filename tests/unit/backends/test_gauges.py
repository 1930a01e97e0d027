"""The load that others put on a backend: what is read, and what is made of it."""

import asyncio

import pytest

from backends.errors import BackendTimeout, BackendUnreachable, ConnectionLost, InvalidResponse
from backends.gauges import GaugePoller
from backends.registry import Backend, EjectionPolicy
from tests.waiting import until


def page(running=None, waiting=None):
    lines = ["# TYPE vllm:num_requests_running gauge"]
    for name, value in (("running", running), ("waiting", waiting)):
        if value is not None:
            lines.append(f'vllm:num_requests_{name}{{engine="0",model_name="m"}} {value}')
    return "\n".join([*lines, ""]).encode()


class Shows:
    """Stands in for the client: shows each host's page; `meanwhile` happens while it is fetched."""

    def __init__(self, meanwhile=lambda: None, **hosts):
        self.hosts = hosts
        self.meanwhile = meanwhile
        self.asked = []

    async def get(self, url, headers, *, seconds, limit):
        self.asked.append((str(url), headers, seconds, limit))
        self.meanwhile()
        found = self.hosts[url.origin.host]
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, tuple) else (200, found)


def gauges(client, *backends):
    return GaugePoller(client, backends, seconds=0.01, timeout_seconds=2.5)


async def load_of(found, own=0, meanwhile=lambda _: None):
    """The load seen on a backend that shows this page while we have so many there."""
    backend = Backend("http://a:8000")
    for _ in range(own):
        backend.begin_request()
    await gauges(Shows(lambda: meanwhile(backend), a=found), backend).poll_backend(backend)
    return backend.running_and_queued


async def test_what_is_asked():
    client = Shows(a=page(0, 0))
    backend = Backend("http://a:8000/vllm", api_key="k")
    await gauges(client, backend).poll_backend(backend)
    ((url, headers, seconds, limit),) = client.asked
    assert (url, headers) == ("http://a:8000/vllm/metrics", {"Authorization": "Bearer k"})
    assert seconds == 2.5
    assert limit >= 1 << 20


@pytest.mark.parametrize(
    ("running", "waiting", "own", "load"),
    [
        (0, 0, 0, (0, 0)),
        (5, 0, 0, (5, 0)),  # all of them others'
        (5, 0, 5, (5, 0)),  # all of them ours
        (5, 0, 2, (5, 0)),
        (2, 0, 5, (5, 0)),  # an older page than our own count: ours are there
        (5, 3, 2, (5, 3)),
        (2, 6, 8, (2, 6)),
        (5, None, 0, (5, 0)),
        (None, 4, 0, (0, 4)),
        (None, None, 3, (3, 0)),
        ("NaN", 0, 1, (1, 0)),
        ("+Inf", 0, 1, (1, 0)),
        (-4, 0, 1, (1, 0)),
        ("4.0", "2e0", 0, (4, 2)),
    ],
)
async def test_what_others_have_there_is_added_to_our_own(running, waiting, own, load):
    assert await load_of(page(running, waiting), own) == load


@pytest.mark.parametrize(
    "found",
    [
        (404, b"no such page"),
        (500, page(9, 9)),
        (200, b""),
        (200, b"<html>"),
        (200, b"\xff\xfe"),
        BackendUnreachable("refused"),
        ConnectionLost("reset"),
        BackendTimeout("2.5 s"),
        InvalidResponse("too long"),
    ],
)
async def test_a_backend_that_shows_nothing_has_no_other_load(found):
    backend = Backend("http://a:8000")
    backend.begin_request()
    client = Shows(a=page(9, 4))
    await gauges(client, backend).poll_backend(backend)
    assert backend.running_and_queued == (9, 4)
    client.hosts["a"] = found
    await gauges(client, backend).poll_backend(backend)
    assert backend.running_and_queued == (1, 0)
    # Nor does that make it an unwell one.
    assert not backend.is_ejected


async def test_the_engines_of_one_server_add_up():
    both = page(3, 1) + page(4, 0).replace(b'engine="0"', b'engine="1"')
    assert await load_of(both) == (7, 1)


async def test_ours_that_came_or_went_while_it_was_read_are_not_taken_for_others():
    assert await load_of(page(3), own=2, meanwhile=lambda backend: backend.begin_request()) == (
        3,
        0,
    )
    assert await load_of(page(3), own=3, meanwhile=lambda backend: backend.end_request()) == (2, 0)


async def test_our_own_count_is_never_old():
    backend = Backend("http://a:8000")
    await gauges(Shows(a=page(4)), backend).poll_backend(backend)
    for more in range(1, 4):
        backend.begin_request()
        assert backend.running_and_queued == (4 + more, 0)
    for more in reversed(range(3)):
        backend.end_request()
        assert backend.running_and_queued == (4 + more, 0)


async def test_all_are_watched_but_those_that_are_left_alone_and_none_waits_for_another():
    slow = asyncio.Event()

    class Client(Shows):
        async def get(self, url, headers, *, seconds, limit):
            if url.origin.host == "slow":
                await slow.wait()
            return await super().get(url, headers, seconds=seconds, limit=limit)

    client = Client(a=page(2), out=page(7), slow=page(5))
    a, hung = Backend("http://a"), Backend("http://slow")
    out = Backend("http://out", ejection=EjectionPolicy(after_failures=1))
    out.record_failure()
    task = asyncio.create_task(gauges(client, a, hung, out).run())
    await until(lambda: len(client.asked) >= 3)
    assert {url for url, *_ in client.asked} == {"http://a/metrics"}
    assert (a.running_and_queued, hung.running_and_queued, out.running_and_queued) == (
        (2, 0),
        (0, 0),
        (0, 0),
    )
    # The figures change, and one comes back.
    client.hosts["a"] = page(1)
    out.record_first_content()
    slow.set()
    await until(
        lambda: (
            (a.running_and_queued, hung.running_and_queued, out.running_and_queued)
            == ((1, 0), (5, 0), (7, 0))
        )
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
