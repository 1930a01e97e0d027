"""vLLM's own count of what runs and waits, to see the load that others put on a backend.

A gauge may be seconds old, so it is never taken for the load itself: what it shows beyond this
gateway's own requests of that moment is what others have there, and that is added to the own count.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

from backends.client import BackendClient
from backends.errors import BackendError
from backends.exposition import sum_series
from backends.periodic import run_periodically
from backends.registry import Backend
from backends.vllm import metric_names

_MAX_PAGE_BYTES = 4 << 20


class GaugePoller:
    """Watches a set of backends until cancelled."""

    def __init__(
        self,
        client: BackendClient,
        backends: Sequence[Backend],
        *,
        seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._backends = backends
        self._seconds = seconds
        self._timeout_seconds = timeout_seconds

    async def poll_backend(self, backend: Backend) -> None:
        """Look at one backend; one that shows nothing is taken to have no other load."""
        before = backend.sent_requests
        try:
            status, page = await self._client.get(
                backend.build_url("/metrics"),
                backend.headers,
                seconds=self._timeout_seconds,
                limit=_MAX_PAGE_BYTES,
            )
        except BackendError:
            status, page = 0, b""
        shown = status == HTTPStatus.OK
        running = sum_series(page, metric_names.REQUESTS_RUNNING) if shown else None
        waiting = sum_series(page, metric_names.REQUESTS_WAITING) if shown else None
        cache = sum_series(page, metric_names.KV_CACHE_USAGE) if shown else None
        # The page is of some moment in between: the higher own count claims less for others.
        backend.record_gauges(
            running, waiting, own=max(before, backend.sent_requests), cache_usage=cache
        )

    async def run(self) -> None:
        """Look for ever; one loop a backend, so that a slow one delays no other."""
        async with asyncio.TaskGroup() as group:
            for backend in self._backends:
                group.create_task(self._poll_periodically(backend))

    async def _poll_periodically(self, backend: Backend) -> None:
        async def poll_unless_ejected() -> None:
            if not backend.is_ejected:
                await self.poll_backend(backend)

        await asyncio.sleep(self._seconds)
        await run_periodically(
            poll_unless_ejected, self._seconds, f"reading the gauges of {backend.label}"
        )
