"""Probes: each backend's /health, once a second while it is out, more rarely while it is well."""

import asyncio
import itertools
from collections.abc import Sequence

from backends.client import Client
from backends.errors import BackendError
from backends.periodic import rounds
from backends.registry import Backend

_SERVER_ERROR = 500


class Prober:
    """Watches a set of backends until cancelled."""

    def __init__(
        self,
        client: Client,
        backends: Sequence[Backend],
        *,
        out_seconds: float,
        well_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._backends = backends
        self._out_seconds = out_seconds
        self._well_seconds = well_seconds
        self._timeout_seconds = timeout_seconds

    async def probe(self, backend: Backend) -> None:
        """Ask one backend for its health and note the answer."""
        try:
            status, _ = await self._client.get(
                backend.url("/health"), backend.headers, seconds=self._timeout_seconds
            )
            well = status < _SERVER_ERROR
            detail = f"status {status}"
        except BackendError as error:
            well = False
            detail = f"{error.reason}: {error}"
        backend.probed(well=well, why=detail)

    async def run(self) -> None:
        """Probe for ever; one loop a backend, so that a hanging one delays no other."""
        async with asyncio.TaskGroup() as group:
            for backend in self._backends:
                group.create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        step = min(self._out_seconds, self._well_seconds)
        every = max(1, round(self._well_seconds / step))
        turns = itertools.count()

        async def turn() -> None:
            # Looked at each step, because it may be ejected just after a probe found it well.
            if next(turns) % every == 0 or backend.ejected:
                await self.probe(backend)

        await rounds(turn, step, f"probing {backend.label}")
