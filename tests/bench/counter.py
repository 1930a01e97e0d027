"""A meter over a made-up counter of 300 W: `python -m tests.bench.counter PORT`."""

import asyncio
import sys
import time

from backends.meter.daemon import server
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.sources.source import EnergyDevice

_WATTS = 300


class Steady:
    """The counter."""

    kind = "steady"
    coarse = False

    def open(self) -> tuple[EnergyDevice, ...]:
        return (EnergyDevice("steady", "none"),)

    def read(self, _: EnergyDevice) -> int:
        return time.monotonic_ns() // 100_000_000 * 100_000 * _WATTS  # moves every 100 ms

    def close(self) -> None:
        pass


async def _serve(port: int) -> None:
    async with await server.start_meter([LedgerSpec("gpu", Steady())], port=port):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
