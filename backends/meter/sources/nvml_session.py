"""The process's one hold on NVML, shared by the sources of all ledgers.

NVML finds a GPU that was lost only when it is initialised anew, and counts those who have
initialised it: one hold for all lets one source begin anew without asking the others to stop. They
see that `generation` has moved and look their GPUs up again.
"""

import importlib
import logging
import threading
from typing import Any

from backends.meter.sources.source import SourceError

_log = logging.getLogger("joulegate.meter")


class Session:
    """Hold `lock` around everything. `library` is pynvml, imported when needed unless given."""

    def __init__(self, library: Any = None) -> None:
        self.lock = threading.RLock()
        self.library = library
        self.generation = 0
        self._users = 0
        self._up = False

    @property
    def shared(self) -> bool:
        """Whether more than one source uses it."""
        return self._users > 1

    def load(self) -> None:
        """Import pynvml. Raises SourceError where it is not installed."""
        if self.library is None:
            try:
                self.library = importlib.import_module("pynvml")
            except ImportError:
                raise SourceError("NVML needs `pip install 'joulegate[meter]'`") from None

    def begin(self) -> None:
        """One source more. Raises NVMLError."""
        if not self._up:
            self._start()
        self._users += 1

    def end(self) -> None:
        """One source less."""
        self._users -= 1
        if not self._users:
            self._stop()

    def restart(self) -> None:
        """Initialise anew, so that handles of before are no longer good. Raises NVMLError."""
        self._stop()
        self._start()

    def _start(self) -> None:
        self.library.nvmlInit()
        self._up = True
        self.generation += 1

    def _stop(self) -> None:
        if self._up:
            self._up = False
            try:
                self.library.nvmlShutdown()
            except self.library.NVMLError as error:
                _log.debug("nvmlShutdown: %s", error)


SHARED = Session()
