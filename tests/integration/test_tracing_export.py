"""When spans are sent, and what a collector that takes none may cost."""

import asyncio
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gateway.config import TracingConfig
from tests.integration import collector
from tests.integration.collector import traced
from tests.integration.harness import CHAT, model

_soon, collector = collector._soon, collector.collector


async def test_spans_that_are_not_sent_yet_are_sent_at_the_end(world, collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    backend = await world.recorder()
    gate = await traced(world, collector, model("phi-3-mini", backend))
    for _ in range(3):
        await gate.ask(CHAT)
    assert not collector.spans
    await world.stack.aclose()
    assert len(collector.spans) == 3


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_a_collector_that_never_answers_holds_up_no_request_and_no_shutdown(
    world, monkeypatch
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    held = asyncio.Event()

    async def hold(reader, _):
        await reader.readuntil(b"\r\n\r\n")
        held.set()
        await asyncio.Event().wait()

    mute, backend = await world.raw(hold), await world.recorder()
    # The processor alone would wait for half a minute.
    async with asyncio.timeout(25):
        # Closed first: the collector is still mute then.
        inner = type(world)(await world.stack.enter_async_context(type(world.stack)()))
        gate = await inner.gate(
            model("phi-3-mini", backend), tracing=TracingConfig(f"{mute.url}/v1/traces")
        )
        await gate.ask(CHAT)
        await held.wait()
        # More than the processor's queue holds.
        for _ in range(10):
            answers = await asyncio.gather(*(gate.ask(CHAT) for _ in range(250)))
            assert {got.status for got in answers} == {200}
        await inner.stack.aclose()


async def test_a_collector_that_is_not_there_costs_nothing_but_its_spans(world, unused_port):
    backend = await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", backend),
        tracing=TracingConfig(f"http://127.0.0.1:{unused_port}/v1/traces"),
    )
    assert {(await gate.ask(CHAT)).status for _ in range(20)} == {200}
    async with asyncio.timeout(60):
        await world.stack.aclose()


@pytest.fixture
def unused_port():
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_address[1]


def test_nothing_of_opentelemetry_is_loaded_unless_configured():
    script = """
import sys
from gateway.app import create_app
from gateway.config import parse_config
text = "models: [{name: phi-3-mini, context: 9, backends: [{url: 'http://a:1'}]}]"
create_app(parse_config(text, "x"))
heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "gateway.telemetry.tracing")
assert not [name for name in sys.modules if name.startswith(heavy)]
"""
    # Litestar itself loads some names of the API where it is installed.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
