"""What the benches of metering share: a backend for each number of requests in flight, a meter with
a ledger for each, and a gateway in a process of its own that logs what became of every request.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from backends.meter.daemon import server as meters
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.cost_model import CostModel
from backends.simulator.server import RunningSimulator, start_simulator
from backends.simulator.spec import SimulatorSpec
from gateway import profile as profiles
from tests.bench import serving

PROMPT_TOKENS = (20, 400)
ANSWER_TOKENS = (20, 200)
MODEL = "phi-3-mini"


def name(level: int) -> str:
    """Return the model that so many at once ask for."""
    return f"phi-{level}"


@contextlib.asynccontextmanager
async def served(
    core: int,
    levels: Sequence[int],
    *,
    noise: float,
    speed: float = 1.0,
    hz: float = 20.0,
    period_seconds: float | None = None,
) -> AsyncIterator[serving.Serving]:
    """Run it all; the gateway has `core` to itself."""
    async with contextlib.AsyncExitStack() as stack:
        running = {
            level: await stack.enter_async_context(await _backend(level, noise, speed))
            for level in levels
        }
        ledgers = [
            LedgerSpec(
                f"gpu{level}",
                SimulatorSource(backend.url, period_seconds=period_seconds),
                (BackendSpec(backend.url),),
            )
            for level, backend in running.items()
        ]
        meter = await stack.enter_async_context(await meters.start_meter(ledgers, hz=hz))
        gateway = serving.configured(core, _config(running, meter.url))
        yield await stack.enter_async_context(serving.beside_loop(gateway))


async def logged(log: Path, count: int, *, seconds: float) -> dict[str, dict[str, Any]]:
    """Wait until the decision log has so many lines; return them by request."""
    deadline = time.monotonic() + seconds
    lines: list[str] = []
    while len(lines) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count - len(lines)} requests were not settled")
        await asyncio.sleep(0.5)
        lines = await asyncio.to_thread(_lines, log)
    return {line["id"]: line for line in map(json.loads, lines)}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


async def _backend(level: int, noise: float, speed: float) -> RunningSimulator:
    fitted = msgspec.to_builtins(profiles.load_profile(None).get_model(MODEL))
    truth = CostModel.from_profile(fitted, context=4096, noise=noise)
    return await start_simulator(SimulatorSpec(name(level), truth, speed=speed, seed=level))


def _config(running: dict[int, RunningSimulator], meter: str) -> str:
    lines = ["models:"]
    for level, backend in running.items():
        lines += [
            f"  - name: {name(level)}",
            f"    profile: {MODEL}",
            "    context: 4096",
            f"    backends: [{{url: '{backend.url}', meter: '{meter}/gpu{level}'}}]",
        ]
    return "\n".join([*lines, "log: {decisions: decisions.jsonl}"]) + "\n"
