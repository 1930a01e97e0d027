"""Health probes: each backend's /health, more often while it is ejected than while it is well."""

import asyncio
import itertools
from collections.abc import Sequence
from http import HTTPStatus

from backends.client import BackendClient
from backends.errors import BackendError, BackendUnreachable
from backends.periodic import run_periodically
from backends.registry import Backend


class HealthProber:
    """Watches a set of backends until cancelled."""

    def __init__(
        self,
        client: BackendClient,
        backends: Sequence[Backend],
        *,
        ejected_period_seconds: float,
        healthy_period_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._backends = backends
        self._ejected_period_seconds = ejected_period_seconds
        self._healthy_period_seconds = healthy_period_seconds
        self._timeout_seconds = timeout_seconds

    async def probe_backend(self, backend: Backend) -> None:
        """Probe one backend once and record the result."""
        gone = False
        try:
            status, _ = await self._client.get(
                backend.build_url("/health"), backend.headers, seconds=self._timeout_seconds
            )
            well = status < HTTPStatus.INTERNAL_SERVER_ERROR
            detail = f"status {status}"
        except BackendError as error:
            well = False
            detail = f"{error.reason}: {error}"
            gone = isinstance(error, BackendUnreachable)
        backend.record_probe(well=well, why=detail, gone=gone)

    async def run(self) -> None:
        """Probe for ever; one loop a backend, so that a hanging one delays no other."""
        async with asyncio.TaskGroup() as group:
            for backend in self._backends:
                group.create_task(self._probe_periodically(backend))

    async def _probe_periodically(self, backend: Backend) -> None:
        step = min(self._ejected_period_seconds, self._healthy_period_seconds)
        every = max(1, round(self._healthy_period_seconds / step))
        turns = itertools.count()

        async def probe_when_due() -> None:
            # Looked at each step, because it may be ejected just after a probe found it well.
            if next(turns) % every == 0 or backend.is_ejected:
                await self.probe_backend(backend)

        await run_periodically(probe_when_due, step, f"probing {backend.label}")
