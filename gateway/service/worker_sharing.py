"""Makes the workers of one host one gateway: in-flight counts, ejections, bytes held, lessons.

Rules: what cannot be shared (a folder that is gone, a socket that cannot be made) is logged once,
and the worker goes on by itself. Counts are seen by all at once; ejections, deaths and lessons
within a tenth of a second.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from backends.periodic import run_periodically
from backends.registry import Backend
from backends.worker_table import WorkerTable
from gateway.service.byte_budget import ByteBudget
from gateway.service.request.learnt import Learnt
from gateway.service.request.learnt_exchange import LearntExchange

_log = logging.getLogger("joulegate")

_ROUND_SECONDS = 0.1


class WorkerSharing:
    """One worker's part in what `workers` of them share in `folder`."""

    def __init__(
        self,
        folder: Path,
        workers: int,
        backends: Sequence[Backend],
        held: ByteBudget,
        learnt: Learnt | None,
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._held = held
        self._backends: tuple[Backend, ...] = ()
        self._table: WorkerTable | None = None
        self._exchange: LearntExchange | None = None
        try:
            self._join_table(backends)
            if learnt is not None:
                self._exchange = LearntExchange(folder, learnt)
        except OSError as error:
            _log.error("this worker cannot share all it knows with the others: %s", error)

    def change_backends(self, backends: Sequence[Backend]) -> None:
        """Share what another configuration has; workers that have it too meet in its table."""
        for gone in set(self._backends).difference(backends):
            gone.share(None)
        if self._table is not None:
            self._table.close()
            self._table = None
        try:
            self._join_table(backends)
        except OSError as error:
            for backend in self._backends:
                backend.share(None)
            self._held.share(None)
            _log.error("this worker cannot share its load with the others: %s", error)

    def _join_table(self, backends: Sequence[Backend]) -> None:
        """Share counts in the table of these backends. Raises OSError."""
        self._backends = tuple(dict.fromkeys(backends))
        path = self._folder / f"fleet_{_fingerprint(self._backends, self._workers)}.table"
        self._table = WorkerTable(path, len(self._backends), self._workers)
        for number, backend in enumerate(self._backends):
            backend.share(self._table.get_backend(number))
        self._held.share(self._table.get_bytes_held())

    async def run(self) -> None:
        """Keep up with the others until cancelled."""
        if self._exchange is not None:
            self._exchange.start(asyncio.get_running_loop())
        await run_periodically(self._run_round, _ROUND_SECONDS, "keeping up with other workers")

    def close(self) -> None:
        """Leave: nothing of this worker stays with the others but what they have learnt."""
        if self._exchange is not None:
            self._exchange.close(asyncio.get_running_loop())
        if self._table is not None:
            self._table.close()

    def _run_round(self) -> None:
        if self._table is not None:
            self._table.sweep()
        for backend in self._backends:
            backend.adopt_state()
            # Others' requests come and go without this worker's doing.
            backend.integrate_load()
        if self._exchange is not None:
            self._exchange.send_lessons()


def _fingerprint(backends: Sequence[Backend], workers: int) -> str:
    """Return what differs between configurations whose cells do not mean the same."""
    told = "\n".join([str(workers), *(backend.root for backend in backends)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
