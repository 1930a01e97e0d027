"""Retries are a share of the traffic: a fleet in trouble is asked at most 1.2 times a request."""

import asyncio

import pytest
from aiohttp import web

from gateway.config import RetryConfig
from tests.integration.harness import CHAT, STREAM, model, until
from tests.integration.scripted import request

NO = {"error": {"message": "no", "type": "RateLimitError"}}


def failing(status, **headers):
    async def answer(*_):
        return web.json_response(NO, status=status, headers=headers)

    return answer


async def nonsense(*_):
    return web.Response(text="<html>", content_type="text/html")


async def cut(request_, _):
    request_.transport.abort()
    return web.Response()


STORMS = [
    failing(429),
    failing(429, **{"Retry-After": "2"}),
    failing(429, **{"Retry-After": "0"}),
    failing(500),
    failing(503),
    failing(503, **{"Retry-After": "1.5"}),
    failing(408),
    nonsense,
    cut,
]


async def storm(world, answer, requests, *, body=CHAT, clients=8, **fields):
    """Ask a failing fleet of three models with two backends each; return all that came of it."""
    names = ("phi-3-mini", "mistral-7b", "falcon-7b")
    backends = [await world.recorder(answer) for _ in range(6)]
    gate = await world.gate(
        *(model(name, *backends[2 * k : 2 * k + 2]) for k, name in enumerate(names)), **fields
    )
    left = iter(range(requests))

    async def client():
        return [await gate.ask(body) for _ in left]

    answers = await asyncio.gather(*(client() for _ in range(clients)))
    sent = sum(len(backend.seen) for backend in backends)
    return gate, [got for some in answers for got in some], sent


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize("answer", STORMS)
async def test_at_most_1_2_attempts_a_request_in_every_storm(world, answer, body):
    gate, answers, sent = await storm(world, answer, 200, body=body)
    assert len(answers) == 200
    assert {got.status for got in answers} <= {429, 502, 503}
    attempts = sum(int(got.headers["x-joulegate-attempts"]) for got in answers)
    assert attempts <= 240
    # What met the close of the connection that a probe left is sent once more, silently.
    assert attempts <= sent <= attempts + (6 if answer is cut else 0)
    assert all(1 <= int(got.headers["retry-after"]) <= 60 for got in answers)
    assert gate.idle


@pytest.mark.parametrize(
    ("retry", "most"),
    [
        (RetryConfig(budget_ratio=0, budget_start=0), 40),
        (RetryConfig(budget_ratio=0, budget_start=5), 45),
        (RetryConfig(budget_ratio=0.5, budget_start=0, budget_max=100), 60),
        (RetryConfig(max_attempts=1), 40),
        (RetryConfig(budget_start=1000), 160),
    ],
)
async def test_the_budget_is_the_configs(world, retry, most):
    _, answers, sent = await storm(world, failing(500), 40, retry=retry)
    assert sent == most
    assert {got.status for got in answers} == {503}


async def test_all_busy_is_a_429_with_the_shortest_wait_and_ejects_nobody(world):
    slow = await world.recorder(failing(429, **{"Retry-After": "30"}))
    quick = await world.recorder(failing(429, **{"Retry-After": "7.5"}))
    gate = await world.gate(model("phi-3-mini", slow), model("mistral-7b", quick))
    got = await gate.ask()
    assert (got.status, got.headers["retry-after"]) == (429, "8")
    assert (await gate.get("/ready")).status == 200
    assert await gate.metric("joulegate_backend_ejections_total") == 0
    assert await gate.metric("joulegate_backend_up") == 2


async def test_a_backend_is_not_asked_again_before_its_retry_after(world):
    busy = await world.recorder(failing(429, **{"Retry-After": "30"}))
    good = await world.recorder()
    gate = await world.gate(model("phi-3-mini", busy, good))
    for _ in range(30):
        assert (await gate.ask()).status == 200
    assert len(busy.seen) == 1


async def test_where_all_asked_to_wait_one_request_at_a_time_is_let_through(world):
    release = asyncio.Event()

    async def answer(*_):
        if len(backend.seen) > 1:
            await release.wait()
        return web.json_response(NO, status=429, headers={"Retry-After": "30"})

    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend))
    assert (await gate.ask()).status == 429
    trial = asyncio.create_task(gate.ask())
    await until(lambda: len(backend.seen) == 2)
    for _ in range(5):
        got = await gate.ask()
        assert (got.status, got.json["error"]["code"]) == (429, "rate_limited")
        assert 28 <= int(got.headers["retry-after"]) <= 30
        assert got.headers["x-joulegate-attempts"] == "0"
    release.set()
    assert (await trial).status == 429
    assert len(backend.seen) == 2


async def test_refused_connections_cost_nobody_anything(world):
    gone = [await world.simulator("phi-3-mini") for _ in range(4)]
    good = await world.simulator("phi-3-mini")
    gate = await world.gate(
        model("phi-3-mini", *gone, good), retry=RetryConfig(budget_start=0, max_attempts=1)
    )
    for server in gone:
        server.faults.set_fault("refuse")
    for _ in range(30):
        assert (await gate.ask()).status == 200


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
