"""How long a scrape holds the event loop: 50 tenants, 6 presets, 5 models.

Run by `python -m tests.bench scrape`. CPU time of the loop's thread, so that other work on the
machine does not count; the longest hold is what a request may wait for.
"""

import asyncio
import time

from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from backends.metrics_page import encode_metrics_in_turns
from gateway.telemetry.batched_metrics import publish_batch
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.request_stages import CallerIdentity
from tests.unit.gateway.telemetry.test_metrics import record

TENANTS = 50
PRESETS = ("default", "accuracy", "energy", "time", "balanced", "eco")
MODELS = tuple(f"model-{n}" for n in range(5))
_ROUNDS = 10


def make_metrics() -> GatewayMetrics:
    """Return the metrics of a gateway that every tenant has asked by every preset."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.initialise_series(MODELS)
    for model in MODELS:
        for tenant in range(TENANTS):
            for preset in PRESETS:
                one = record()
                caller = CallerIdentity("key", f"tenant-{tenant}")
                one.received = replace(one.received, caller=caller)
                one.answered = replace(one.answered, model=model)
                one.target = replace(one.target, requested=f"auto:{preset}", preset=preset)
                metrics.count_finished_request(one)
                metrics.count_energy(model, one.settled, one.tenant, preset)
    publish_batch()
    return metrics


async def _measure(metrics: GatewayMetrics) -> tuple[int, float, float]:
    """Return the page's lines, its CPU seconds, and the longest hold of the loop."""
    holds: list[float] = []

    async def watch() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            holds.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    began = time.thread_time()
    for _ in range(_ROUNDS):
        page, _ = await encode_metrics_in_turns(metrics.registry, "")
    spent = (time.thread_time() - began) / _ROUNDS
    watching.cancel()
    return page.count(b"\n"), spent, max(holds)


def main(_: list[str]) -> int:
    """Measure and print; fail over 100 ms."""
    lines, spent, longest = asyncio.run(_measure(make_metrics()))
    print(f"{lines} lines, {spent * 1e3:.0f} ms of CPU; longest hold {longest * 1e3:.0f} ms")
    return 0 if longest < 0.1 else 1
