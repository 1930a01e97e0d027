"""The process's one NVML session, shared by the sources of all ledgers.

NVML finds a GPU that was lost only when it is initialised anew, and counts those who have
initialised it: one session for all lets one source begin anew without
asking the others to stop. They see that `generation` has moved and look their GPUs up again.
"""

import importlib
import logging
import threading
from typing import Any

from backends.install_hint import suggest_install
from backends.meter.sources.source import SourceError

_log = logging.getLogger("joulegate.meter")


class NvmlSession:
    """Hold `lock` around everything. `library` is pynvml, imported when needed unless given."""

    def __init__(self, library: Any = None) -> None:
        self.lock = threading.RLock()
        self.library = library
        self.generation = 0
        self._users = 0
        self._up = False

    @property
    def is_shared(self) -> bool:
        """Whether more than one source uses it."""
        return self._users > 1

    def load_library(self) -> None:
        """Import pynvml. Raises SourceError where it is not installed."""
        if self.library is None:
            try:
                self.library = importlib.import_module("pynvml")
            except ImportError:
                raise SourceError(f"NVML needs `{suggest_install('meter')}`") from None

    def add_user(self) -> None:
        """One source more. Raises NVMLError."""
        if not self._up:
            self._init_library()
        self._users += 1

    def remove_user(self) -> None:
        """One source less."""
        self._users -= 1
        if not self._users:
            self._shutdown_library()

    def restart_library(self) -> None:
        """Initialise anew, so that handles of before are no longer good. Raises NVMLError."""
        self._shutdown_library()
        self._init_library()

    def _init_library(self) -> None:
        self.library.nvmlInit()
        self._up = True
        self.generation += 1

    def _shutdown_library(self) -> None:
        if self._up:
            self._up = False
            try:
                self.library.nvmlShutdown()
            except self.library.NVMLError as error:
                _log.debug("nvmlShutdown: %s", error)


SHARED_SESSION = NvmlSession()
