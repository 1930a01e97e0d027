"""Looking on from outside until something shows."""

import asyncio
import inspect

from tests.e2e.processes import total
from tests.waiting import until


async def eventually(condition, seconds=30):
    """Ask `condition()` (plain or async) every 50 ms until it holds; fail after `seconds`."""
    await until(condition, inspect.getsource(condition), seconds, every_seconds=0.05)


class Watch:
    """vLLM's own counters, as they moved since the watch was made."""

    def __init__(self, server):
        self.server = server
        self.running, self.generated, self.finished = 0, 0, 0
        self.before = self._read()

    def _read(self):
        exposition = self.server.get("/metrics")
        self.running = total(exposition, "vllm:num_requests_running") + total(
            exposition, "vllm:num_requests_waiting"
        )
        return (
            total(exposition, "vllm:generation_tokens_total"),
            total(exposition, "vllm:request_success_total", finished_reason="length"),
        )

    async def until(self, condition, seconds=30):
        """Read until `condition()` holds, which looks at the attributes."""

        async def holds():
            generated, finished = await asyncio.to_thread(self._read)
            self.generated = generated - self.before[0]
            self.finished = finished - self.before[1]
            return condition()

        await eventually(holds, seconds)

    def check_unfinished(self, asked):
        assert self.finished == 0
        assert self.generated < asked / 2
