"""Probes: what counts as well, and that one backend's silence is its own."""

import pytest

from backends.errors import BackendTimeout, BackendUnreachable, ConnectionLost, InvalidResponse
from backends.health import HealthProber
from backends.registry import Backend


class Answers:
    """Stands in for the client: answers each host as told, an exception by raising it."""

    def __init__(self, **hosts):
        self.hosts = hosts
        self.asked = []

    async def get(self, url, headers, *, seconds):
        self.asked.append((str(url), headers, seconds))
        answer = self.hosts[url.origin.host]
        if isinstance(answer, Exception):
            raise answer
        return answer, b""


def prober(client, *backends):
    return HealthProber(
        client,
        backends,
        ejected_period_seconds=1.0,
        healthy_period_seconds=5.0,
        timeout_seconds=2.5,
    )


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (200, True),
        (204, True),
        (404, True),  # a server that has no /health is a server that is there
        (401, True),
        (500, False),
        (503, False),
        (BackendUnreachable("refused"), False),
        (ConnectionLost("reset"), False),
        (BackendTimeout("2.5 s"), False),
        (InvalidResponse("garbage"), False),
    ],
)
async def test_what_counts_as_well(answer, well):
    backend = Backend("http://a:8000")
    await prober(Answers(a=answer), backend).probe_backend(backend)
    # Never seen well before: the first word decides.
    assert backend.is_available is well
    assert backend.proven_healthy is well


@pytest.mark.parametrize(
    ("answer", "waits"),
    [(BackendUnreachable("refused"), False), (BackendTimeout("2.5 s"), True), (503, True)],
)
async def test_who_is_gone_no_longer_asks_not_to_be_asked(answer, waits):
    backend = Backend("http://a:8000")
    backend.record_retry_after(60, 503)
    await prober(Answers(a=answer), backend).probe_backend(backend)
    assert (backend.wait_seconds > 0) is waits


async def test_what_is_asked():
    backend = Backend("http://a:8000/vllm", api_key="k")
    client = Answers(a=200)
    await prober(client, backend).probe_backend(backend)
    assert client.asked == [("http://a:8000/vllm/health", {"Authorization": "Bearer k"}, 2.5)]


async def test_a_probe_brings_an_ejected_backend_back_half_open():
    backend = Backend("http://a")
    client = Answers(a=BackendUnreachable("refused"))
    watching = prober(client, backend)
    await watching.probe_backend(backend)
    assert not backend.is_available
    client.hosts["a"] = 200
    await watching.probe_backend(backend)
    assert backend.is_available
    assert backend.is_ejected
    backend.begin_request()
    assert not backend.is_available


async def test_going_out_is_said_once(caplog):
    backend = Backend("http://a:8000")
    watching = prober(Answers(a=BackendUnreachable("refused")), backend)
    for _ in range(3):
        await watching.probe_backend(backend)
    assert [entry.getMessage() for entry in caplog.records] == [
        "backend a:8000 ejected for up to 30 s: unreachable: refused"
    ]


async def test_a_proven_backend_is_given_five_probes():
    backend = Backend("http://a")
    client = Answers(a=200)
    watching = prober(client, backend)
    await watching.probe_backend(backend)
    client.hosts["a"] = 500
    usable = []
    for _ in range(5):
        await watching.probe_backend(backend)
        usable.append(backend.is_available)
    assert usable == [True, True, True, True, False]
