"""Clients that leave: whatever the backend was doing for them stops."""

import asyncio
import contextlib
import json

import pytest

from backends.simulator.cost_model import SimulatedCost
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, spent, until

BODIES = [CHAT | ENDLESS, STREAM | ENDLESS]


@pytest.fixture
async def lonely(world):
    """One slow backend that serves one request at a time, and its gateway."""
    simulator = await world.simulator(speed=1.0, truth_fields={"max_num_seqs": 1})
    return simulator, await world.gate(model("phi-3-mini", simulator))


async def leave(task):
    """Close a client's connection while it waits."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def settled(world, gate, left):
    """Everything is free again, and as many left as are counted."""
    await until(lambda: world.empty, "the engine to be empty")
    await until(lambda: gate.idle, "the gateway to be idle")
    assert await gate.metric("joulegate_client_disconnects_total") == left
    assert await gate.metric("joulegate_requests_total", code="499") == left
    assert await gate.metric("joulegate_backend_inflight") == 0
    assert gate.gateway.backends[0]._failures == 0


@pytest.mark.parametrize("body", BODIES)
async def test_while_queued(world, lonely, body):
    simulator, gate = lonely
    running = asyncio.create_task(gate.ask(STREAM | ENDLESS))
    await until(lambda: simulator.engine.running == 1)
    queued = asyncio.create_task(gate.ask(body))
    await until(lambda: simulator.engine.waiting == 1)
    await leave(queued)
    await until(lambda: simulator.engine.waiting == 0)
    assert simulator.engine.running == 1
    await leave(running)
    await settled(world, gate, 2)


@pytest.mark.parametrize("body", BODIES)
async def test_during_prefill(world, body):
    seconds = SimulatedCost("additive", (3600.0, 0.0, 0.01))
    simulator = await world.simulator(speed=1.0, truth_fields={"seconds": seconds})
    gate = await world.gate(model("phi-3-mini", simulator))
    task = asyncio.create_task(gate.ask(body))
    await until(lambda: simulator.engine.running == 1)
    await leave(task)
    await settled(world, gate, 1)


async def test_while_a_unary_answer_is_made(world, lonely):
    simulator, gate = lonely
    task = asyncio.create_task(gate.ask(CHAT | ENDLESS))
    await until(lambda: spent(simulator) > 0, "some work to be done")
    await leave(task)
    await settled(world, gate, 1)


async def test_while_streaming(world, lonely):
    _, gate = lonely
    async with gate.http.post("/v1/chat/completions", json=STREAM | ENDLESS) as response:
        request_id = response.headers["x-request-id"]
        await response.content.readuntil(b"\n\n")
        response.close()
    await settled(world, gate, 1)
    record = (await gate.get(f"/v1/requests/{request_id}")).json
    assert (record["code"], record["model"]) == (499, "phi-3-mini")
    # What was spent is still metered.
    assert record["observed"]["joules"] > 0
    assert await gate.metric("joulegate_energy_joules_total", model="phi-3-mini") > 0
    assert await gate.metric("joulegate_streams_broken_total") == 0


async def test_the_sdk_closing_a_stream(world, lonely):
    _, gate = lonely
    async with gate.sdk() as sdk:
        stream = await sdk.chat.completions.create(**STREAM, extra_body=ENDLESS)
        async for _ in stream:
            break
        await stream.close()
    await settled(world, gate, 1)


async def test_before_the_body_is_whole(world, lonely):
    _, gate = lonely
    host, port = gate.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    await until(lambda: gate.gateway.inflight == 1)
    writer.transport.abort()
    await settled(world, gate, 1)


async def test_while_a_backend_stays_silent_and_before_a_retry(world):
    silent = await world.simulator()
    silent.faults.set("silent")
    gate = await world.gate(model("phi-3-mini", silent))
    task = asyncio.create_task(gate.ask())
    await until(lambda: silent.faults.served["silent"] == 1)
    await leave(task)
    await settled(world, gate, 1)
    # Nobody is asked on behalf of someone who has left.
    assert silent.faults.served["silent"] == 1


async def test_one_of_many_on_one_server(world):
    simulator = await world.simulator(speed=1.0)
    gate = await world.gate(model("phi-3-mini", simulator))
    tasks = [asyncio.create_task(gate.ask(STREAM | ENDLESS)) for _ in range(8)]
    await until(lambda: simulator.engine.running == 8)
    await leave(tasks[3])
    await until(lambda: simulator.engine.running == 7)
    assert gate.gateway.inflight == 7
    for task in tasks:
        await leave(task)
    await settled(world, gate, 8)


async def test_leaving_after_the_answer_is_no_departure(world):
    simulator = await world.simulator()
    gate = await world.gate(model("phi-3-mini", simulator))
    host, port = gate.url.removeprefix("http://").split(":")
    for body in (CHAT, STREAM):
        sent = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(sent)}\r\n"
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + b"connection: close\r\n\r\n" + sent)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    await settled(world, gate, 0)
    assert await gate.metric("joulegate_requests_total", code="200") == 2
