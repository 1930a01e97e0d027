"""Retries are a share of the traffic: a dead fleet is not hit four times as hard."""

import asyncio

import pytest
from aiohttp import web

from gateway.config import RetryConfig
from tests.integration.harness import CHAT, STREAM, model, until
from tests.integration.scripted import request


class Broken:
    """Backends that all fail, the first attempt of every request at the same moment."""

    def __init__(self, clients):
        self.first = asyncio.Barrier(clients)
        self.ids = set()
        self.attempts = 0
        self.retrying = 0
        self.most = 0

    async def __call__(self, _, seen):
        self.attempts += 1
        request_id = seen.headers["x-request-id"].rpartition("-")[0]
        if request_id not in self.ids:
            self.ids.add(request_id)
            await self.first.wait()
        else:
            self.retrying += 1
            self.most = max(self.most, self.retrying)
            # Give every other request the time to ask for a retry as well.
            await asyncio.sleep(0.05)
            self.retrying -= 1
        return web.json_response({"error": {"message": "no"}}, status=500)


@pytest.mark.parametrize(
    ("clients", "retry", "most"),
    [
        (60, RetryConfig(), 12),
        (5, RetryConfig(), 3),
        (40, RetryConfig(budget_ratio=0, budget_floor=0), 0),
        (40, RetryConfig(budget_ratio=0.5, budget_floor=0), 20),
        (40, RetryConfig(max_attempts=1), 0),
    ],
)
@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_with_everything_failing(world, body, clients, retry, most):
    broken = Broken(clients)
    names = ("phi-3-mini", "mistral-7b", "falcon-7b")
    backends = [await world.recorder(broken) for _ in range(6)]
    gate = await world.gate(
        *(model(name, *backends[2 * k : 2 * k + 2]) for k, name in enumerate(names)), retry=retry
    )
    answers = await asyncio.gather(*(gate.ask(body) for _ in range(clients)))
    assert {got.status for got in answers} == {503}
    assert broken.most <= most
    if most:
        assert broken.most > 0
    # Whoever got a retry may use all of a request's attempts, and no more than those.
    assert broken.attempts <= clients + most * (retry.max_attempts - 1)
    counted = sum(int(got.headers["x-joulegate-attempts"]) for got in answers)
    assert broken.attempts == counted
    assert await gate.metric("joulegate_retries_total") == counted - clients
    assert gate.gateway._dispatcher.budget.retrying == 0
    assert gate.idle


async def test_a_retry_that_ends_gives_its_place_back(world):
    bad = await world.simulator("phi-3-mini")
    good = await world.simulator("mistral-7b")
    bad.faults.set_fault("status", status=500)
    gate = await world.gate(
        model("phi-3-mini", bad),
        model("mistral-7b", good),
        retry=RetryConfig(budget_ratio=0, budget_floor=1),
    )
    for _ in range(20):
        assert (await gate.ask(CHAT | {"model": "auto:energy"})).status == 200
    assert bad.faults.served["status"] == 20


async def test_a_fresh_connection_that_is_cut_is_not_tried_again_in_secret(world):
    # A request that kills its server must not be sent to it twice, uncounted.
    seen = []

    async def talk(reader, writer):
        line, _ = await request(reader)
        if "/health" in line:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
        else:
            seen.append(line)

    backend = await world.raw(talk)
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask()
    assert (got.status, got.headers["x-joulegate-attempts"]) == (503, "1")
    assert len(seen) == 1
    await until(lambda: gate.idle)
