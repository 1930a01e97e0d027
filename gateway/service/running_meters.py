"""The meters in force: their exchanges, and how one that is configured no more is let go.

Rule: a meter that has left the configuration is asked on until the joules of what it measured are
known, so that no request that was served under it falls back to an estimate.
"""

import asyncio
from typing import Final

from backends.meter.client.meter_client import MeterLink
from gateway.service.accounting.accounting import RequestAccounting
from gateway.telemetry.metrics import GatewayMetrics

_LOOK_SECONDS: Final = 0.25
_MOST_LOOKS: Final = 16_000
"""For over an hour, as long as a stream may last by default."""


class RunningMeters:
    """Runs the exchanges with `links`, which whoever changes the configuration adds to."""

    def __init__(
        self,
        links: dict[str, MeterLink],
        accounting: RequestAccounting,
        metrics: GatewayMetrics,
    ) -> None:
        self.links = links
        self._accounting = accounting
        self._metrics = metrics
        self._tasks: dict[MeterLink, asyncio.Task[None]] = {}
        self._retiring: dict[MeterLink, asyncio.Task[None]] = {}
        accounting.meters = tuple(links.values())

    def start_exchanges(self) -> None:
        """Exchange with each that nobody exchanges with yet."""
        for link in self.links.values():
            if link not in self._tasks:
                self._tasks[link] = asyncio.create_task(link.run())
        self._accounting.meters = (*self.links.values(), *self._retiring)

    def keep_only(self, wanted: set[str]) -> None:
        """Let go of those whose address is not `wanted`, once nothing is owed of them."""
        for root in self.links.keys() - wanted:
            link = self.links.pop(root)
            self._retiring[link] = asyncio.create_task(self._retire_link(link))
        self.start_exchanges()

    async def close_links(self) -> None:
        """Tell the meters of the last ends, and end all exchanges."""
        every = self._accounting.meters
        await asyncio.gather(*(link.exchange_batch() for link in every), return_exceptions=True)
        tasks = [*self._tasks.values(), *self._retiring.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _retire_link(self, link: MeterLink) -> None:
        for _ in range(_MOST_LOOKS):
            if not link.has_work:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        self._tasks.pop(link).cancel()
        link.close()
        self._accounting.flush()
        self._retiring.pop(link, None)
        self.start_exchanges()
        self._metrics.fleet.forget_meter(link.label)
