"""Backends that open every stream well and then break it; and what the log says of them."""

import asyncio
import contextlib
import json
import logging
import socket

import pytest
from aiohttp import web

from gateway.config import HealthConfig, TimeoutsConfig
from tests.integration.harness import CHAT, DONE, STREAM, model, until
from tests.integration.scripted import DONE_EVENT, delta, plain

NEVER = 3600.0
HEALTH = HealthConfig(
    probe_seconds=NEVER,
    idle_probe_seconds=NEVER,
    eject_after_failures=3,
    eject_seconds=NEVER,
    eject_max_seconds=NEVER,
)
QUICK = TimeoutsConfig(stall_seconds=0.15)


def first_token_only(kind):
    """Give streams their first token and no more; `well` is a switch."""

    async def answer(request, seen):
        if answer.well:
            return await plain(request, seen)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(delta(content="Hi"))
        if kind == "stalls":
            with contextlib.suppress(ConnectionError):
                await asyncio.sleep(30)
        elif kind == "dies":
            await asyncio.sleep(0.02)
            request.transport.abort()
        elif kind == "errs":
            await response.write(b'data: {"error":{"message":"died","code":500}}\n\n')
        return response  # "ends": without [DONE]

    answer.well = False
    return answer


KINDS = ["stalls", "dies", "errs", "ends"]


@pytest.mark.parametrize("kind", KINDS)
async def test_breaking_every_stream_ejects(world, kind):
    backend = await world.recorder(first_token_only(kind))
    gate = await world.gate(model("phi-3-mini", backend), health=HEALTH, timeouts=QUICK)
    for asked in range(1, 4):
        assert not gate.backend(backend).is_ejected
        got = await gate.ask(STREAM)
        assert got.status == 200
        assert "error" in got.chunks[-1]
        assert len(backend.seen) == asked
    assert gate.backend(backend).is_ejected
    got = await gate.ask(STREAM)
    if kind in {"errs", "ends"}:
        # It does answer, and nobody else is there: it stays in use.
        assert (got.status, len(backend.seen)) == (200, 4)
    else:
        assert (got.status, len(backend.seen)) == (503, 3)
    assert gate.idle


@pytest.mark.parametrize("kind", ["stalls", "dies"])
async def test_one_whole_stream_starts_the_count_anew(world, kind):
    answer = first_token_only(kind)
    backend = await world.recorder(answer)
    gate = await world.gate(model("phi-3-mini", backend), health=HEALTH, timeouts=QUICK)
    for k in range(7):
        answer.well = k % 3 == 2
        got = await gate.ask(STREAM)
        assert (got.events[-1] == DONE) is answer.well
    assert len(backend.seen) == 7
    assert not gate.backend(backend).is_ejected


async def test_a_half_open_backend_that_breaks_its_trial_stays_out(world):
    answer = first_token_only("dies")
    backend = await world.recorder(answer)
    health = HealthConfig(
        probe_seconds=NEVER, idle_probe_seconds=NEVER, eject_after_failures=2, eject_seconds=0.1
    )
    gate = await world.gate(model("phi-3-mini", backend), health=health)
    state = gate.backend(backend)
    for _ in range(2):
        await gate.ask(STREAM)
    assert state.ejections == 1
    for ejections in (2, 3):
        await until(lambda: state.is_available, "the door to open a little")
        await gate.ask(STREAM)
        assert (state.ejections, state.is_ejected, state.is_available) == (ejections, True, False)
    answer.well = True
    await until(lambda: state.is_available, "the door to open a little")
    assert (await gate.ask(STREAM)).events[-1] == DONE
    assert not state.is_ejected
    await until(lambda: gate.idle)


async def test_a_client_that_stops_reading_is_not_the_backends_failure(world):
    async def answer(request, _):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                await response.write(delta(content="x" * 100_000))
            await response.write(DONE_EVENT)
        return response

    backend = await world.recorder(answer)
    health = HealthConfig(probe_seconds=NEVER, idle_probe_seconds=NEVER, eject_after_failures=1)
    gate = await world.gate(
        model("phi-3-mini", backend), health=health, timeouts=TimeoutsConfig(stall_seconds=0.5)
    )
    host, port = gate.url.removeprefix("http://").split(":")
    raw = json.dumps(STREAM).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(head % len(raw) + raw)

        async def cut():
            return await gate.metric("joulegate_requests_total", code="499") == 1

        await until(cut, "the client to be cut")
        assert gate.idle
    assert not gate.backend(backend).is_ejected
    assert gate.backend(backend)._failures == 0


def told(caplog, label, level=logging.INFO):
    """What the gateway's loggers said of one backend."""
    return [
        record
        for record in caplog.records
        if record.name.startswith("joulegate")
        and record.levelno >= level
        and label in record.getMessage()
    ]


@pytest.mark.parametrize("probe_seconds", [0.05, NEVER])
async def test_ejection_and_recovery_are_logged_once_each(world, caplog, probe_seconds):
    caplog.set_level(logging.INFO, "joulegate")

    async def answer(request, seen):
        if answer.well:
            return await plain(request, seen)
        return web.json_response({"error": {"message": "no"}}, status=500)

    answer.well = False
    backend = await world.recorder(answer)
    health = HealthConfig(
        probe_seconds=probe_seconds,
        idle_probe_seconds=NEVER,
        eject_after_failures=3,
        eject_seconds=0.3,
    )
    gate = await world.gate(model("phi-3-mini", backend), health=health)
    state = gate.backend(backend)
    for asked in range(3):
        assert len(told(caplog, state.label)) == 0, asked
        await gate.ask()
    assert state.is_ejected
    out = told(caplog, state.label)
    assert len(out) == 1
    assert out[0].levelno == logging.WARNING
    answer.well = True
    # Several probes, where there are any.
    await asyncio.sleep(0.4)
    for _ in range(4):
        assert (await gate.ask()).status == 200
    assert not state.is_ejected
    both = told(caplog, state.label)
    assert len(both) == 2, [record.getMessage() for record in both]
    assert both[0].getMessage() != both[1].getMessage()


async def test_a_backend_lost_to_probes_is_logged_once(world, caplog):
    caplog.set_level(logging.INFO, "joulegate")
    simulator = await world.simulator()
    health = HealthConfig(probe_seconds=0.03, idle_probe_seconds=0.03, eject_after_failures=2)
    gate = await world.gate(model("phi-3-mini", simulator), health=health)
    state = gate.backend(simulator)
    simulator.faults.set_fault("unhealthy")
    await until(lambda: state.is_ejected, "two probes")
    await asyncio.sleep(0.3)
    assert len(told(caplog, state.label)) == 1
    simulator.faults.clear_faults()
    await until(lambda: state.is_available, "a probe")
    assert (await gate.ask()).status == 200
    await asyncio.sleep(0.2)
    assert not state.is_ejected
    assert len(told(caplog, state.label)) == 2


@pytest.mark.parametrize(
    ("kind", "reason"), [("stalls", "stalled"), ("dies", "connection_lost"), ("errs", "status_5xx")]
)
async def test_a_broken_stream_logs_who_and_why(world, caplog, kind, reason):
    caplog.set_level(logging.INFO, "joulegate")
    backend = await world.recorder(first_token_only(kind))
    gate = await world.gate(model("phi-3-mini", backend), timeouts=QUICK)
    await gate.ask(STREAM, {"x-request-id": "broken-7"})
    lines = [r.getMessage() for r in told(caplog, "broken-7")]
    assert len(lines) == 1, lines
    for part in ("phi-3-mini", gate.backend(backend).label, reason):
        assert part in lines[0]
    # What goes well is not worth a line.
    healthy = await world.gate(model("phi-3-mini", await world.recorder()))
    await healthy.ask(CHAT, {"x-request-id": "fine-8"})
    assert told(caplog, "fine-8") == []
