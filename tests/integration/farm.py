"""Simulated servers for tests that run commands: those have event loops of their own."""

import asyncio
import threading

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.server import start_simulator
from backends.simulator.spec import SimulatorSpec

TRUTH = CostModel(
    seconds=SimulatedCost("additive", (0.02, 0.001, 0.02)),
    joules=SimulatedCost("additive", (40.0, 0.3, 5.0)),
    output=(0.0, 20.0),
    context=2048,
)


class Farm:
    """Simulated servers in a thread with an event loop of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._servers = []

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def add(self, model="phi-3-mini", truth=TRUTH, speed=500.0, **fields):
        server = self.do(start_simulator(SimulatorSpec(model, truth, speed=speed, **fields)))
        self._servers.append(server)
        return server

    def close(self):
        for server in self._servers:
            self.do(server.close())
        self.do(self._cut_late_comers())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def _cut_late_comers(self):
        """Close what was accepted as its server was closing: nobody else knows of it."""
        for _ in range(3):
            await asyncio.sleep(0)
        for transport in list(self.loop._transports.values()):
            transport.abort()
        await asyncio.sleep(0)
