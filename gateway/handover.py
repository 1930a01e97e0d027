"""`joulegate serve` becomes the server: it starts itself anew, without what only a command needs.

The command line's library, pydantic behind it and what prints in colour stay resident for as long
as the process lives: 11 MB. So once the command has checked everything and listens, it executes
its own command line again, under the same process id, and leaves the sockets' descriptors in the
environment; whoever starts `joulegate` looks there first (`take_sockets`). This file is imported
before anything else, and imports only Python's own.
"""

import os
import socket
import sys
from collections.abc import Iterable
from typing import Final

CONFIG: Final = "JOULEGATE_CONFIG"
LEVEL: Final = "JOULEGATE_LOG_LEVEL"
_SOCKETS: Final = "JOULEGATE_SOCKETS"


def become_server(sockets: Iterable[socket.socket]) -> None:
    """Execute this process's command line anew, to serve on these; return where that cannot be.

    Flushes nothing and closes nothing that is not inheritable: to be called with nothing under way.
    """
    if sys.platform == "win32" or not sys.executable:
        return  # its exec is another process, with another id
    numbers = []
    for listener in sockets:
        listener.set_inheritable(True)
        numbers.append(str(listener.fileno()))
    # The id: a process that merely inherits the environment is not meant.
    os.environ[_SOCKETS] = f"{os.getpid()}:{','.join(numbers)}"
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself
    except OSError:
        del os.environ[_SOCKETS]  # the interpreter has been replaced meanwhile


def take_sockets() -> list[socket.socket] | None:
    """Return the listening sockets where this process has been executed to serve, once."""
    process, _, numbers = os.environ.pop(_SOCKETS, "").partition(":")
    if process != str(os.getpid()):
        return None
    return [socket.socket(fileno=int(number)) for number in numbers.split(",")]
