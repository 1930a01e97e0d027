"""The parent of several workers: starts them, replaces those that die, passes signals on."""

import contextlib
import os
import signal

from uvicorn.supervisors import Multiprocess


class WorkerSupervisor(Multiprocess):
    """uvicorn's, but for SIGHUP: the workers read their files anew and none is restarted."""

    def handle_hup(self) -> None:
        """Have every worker read its files anew."""
        for process in self.processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)
