"""What the workers of one host tell each other of the backends: a small file that each maps.

Rules of this file:

- A cell is a whole number of 8 bytes and is written by one worker, its owner; what is asked for is
  the sum over the workers. The cells of a backend's last ejection, and the one that says whether it
  is drained, are anybody's: the last one wins.
- A worker holds a lock for as long as it lives, and the kernel lets go of it however it ends. The
  cells of whoever holds no lock are zeroed by the first that looks (`sweep`), so that nothing of a
  killed worker stays. Process ids are not asked: they come again.
- Times are of the monotonic clock, which is one for all processes of a host.
"""

import fcntl
import mmap
import os
from pathlib import Path
from typing import IO, Final, NamedTuple

_CELL_BYTES: Final = 8
_PER_BACKEND: Final = 3
"""Counts that each worker keeps of a backend."""
_EJECTION_CELLS: Final = 4
"""The last ejection's three, and whether the backend is drained by hand."""
_MICRO: Final = 1e6


class SharedCount:
    """A number that each worker has its own of."""

    __slots__ = ("_cells", "_mine")

    def __init__(self, cells: memoryview, mine: int) -> None:
        self._cells = cells
        self._mine = mine

    def set(self, value: int) -> None:
        """Say what this worker's is."""
        self._cells[self._mine] = value

    @property
    def total(self) -> int:
        """The sum over the workers."""
        return sum(self._cells)

    @property
    def elsewhere(self) -> int:
        """The sum over the other workers."""
        return sum(self._cells) - int(self._cells[self._mine])


class SharedEjection(NamedTuple):
    """The last that a worker said: out until `half_open_at`; None: readmitted."""

    half_open_at: float | None
    streak: int
    for_answers: bool = False


class SharedBackend:
    """One backend, as the workers share it."""

    __slots__ = ("_ejection", "_mine", "_seen", "inflight", "prompt_tokens", "trials")

    def __init__(self, counts: list[SharedCount], ejection: memoryview, mine: int) -> None:
        self.inflight, self.prompt_tokens, self.trials = counts
        self._ejection = ejection
        self._mine = mine
        self._seen = 0

    def post_ejection(self, ejection: SharedEjection) -> None:
        """Tell the others."""
        at = ejection.half_open_at
        self._ejection[1] = 0 if at is None else max(1, round(at * _MICRO))
        self._ejection[2] = ejection.streak << 1 | ejection.for_answers
        # Last, and unlike any that another worker may write at the same time.
        self._seen = ((self._ejection[0] >> 8) + 1) << 8 | self._mine
        self._ejection[0] = self._seen

    @property
    def drained(self) -> bool:
        """Whether it is drained by hand."""
        return bool(self._ejection[3])

    @drained.setter
    def drained(self, drained: bool) -> None:
        self._ejection[3] = int(drained)

    def read_news(self) -> SharedEjection | None:
        """Return what another worker has said since the last call; None: nothing."""
        if self._ejection[0] == self._seen:
            return None
        self._seen = self._ejection[0]
        at = self._ejection[1]
        streak, for_answers = self._ejection[2] >> 1, bool(self._ejection[2] & 1)
        return SharedEjection(at / _MICRO if at else None, streak, for_answers)


class WorkerTable:
    """The table at `path`, of so many backends and workers. Raises OSError.

    All workers must give the same numbers; `path` should tell other configurations apart.
    """

    def __init__(self, path: Path, backends: int, workers: int) -> None:
        self._path = path
        self._backends = backends
        # One that is being replaced may not have gone yet.
        self._workers = workers + 2
        self._locks: list[IO[bytes]] = []
        try:
            self._mine = self._claim_place()
            self._cells = self._map_cells()
        except OSError:
            self._close_locks()
            raise
        if sum(map(self._zero_if_dead, self._others)) == 0:
            # Nobody else lives: whatever stands there is of an earlier run.
            self._cells[:] = memoryview(bytes(len(self._cells) * _CELL_BYTES)).cast("q")
        self._zero_worker(self._mine)

    def get_backend(self, number: int) -> SharedBackend:
        """Return the backend that is `number`th in the configuration."""
        counts = [self._get_count(number * _PER_BACKEND + kind) for kind in range(_PER_BACKEND)]
        start = self._columns * self._workers + number * _EJECTION_CELLS
        return SharedBackend(counts, self._cells[start : start + _EJECTION_CELLS], self._mine)

    def get_bytes_held(self) -> SharedCount:
        """Return the count of the bytes that workers hold for requests and answers."""
        return self._get_count(self._backends * _PER_BACKEND)

    def sweep(self) -> None:
        """Zero the cells of workers that are no more."""
        for worker in self._others:
            self._zero_if_dead(worker)

    def close(self) -> None:
        """Take back all that this worker has said, and leave."""
        self._zero_worker(self._mine)
        self._close_locks()

    @property
    def _columns(self) -> int:
        return self._backends * _PER_BACKEND + 1

    @property
    def _others(self) -> list[int]:
        return [worker for worker in range(self._workers) if worker != self._mine]

    def _get_count(self, column: int) -> SharedCount:
        start = column * self._workers
        return SharedCount(self._cells[start : start + self._workers], self._mine)

    def _claim_place(self) -> int:
        for worker in range(self._workers):
            self._locks.append(self._path.with_suffix(f".{worker}.lock").open("ab"))
        for worker, lock in enumerate(self._locks):
            if _try_lock(lock):
                return worker
        raise OSError(f"all {self._workers} places are taken")

    def _map_cells(self) -> memoryview:
        size = (self._columns * self._workers + self._backends * _EJECTION_CELLS) * _CELL_BYTES
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            return memoryview(mmap.mmap(descriptor, size)).cast("q")
        finally:
            os.close(descriptor)

    def _zero_if_dead(self, worker: int) -> bool:
        """Zero the cells of a worker that is no more; tell whether it lives."""
        lock = self._locks[worker]
        if not _try_lock(lock):
            return True
        # Held meanwhile: one that is just beginning takes another place.
        self._zero_worker(worker)
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False

    def _zero_worker(self, worker: int) -> None:
        for column in range(self._columns):
            self._cells[column * self._workers + worker] = 0

    def _close_locks(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks = []


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
