"""Write a file whole or not at all."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from stat import S_IMODE
from typing import Final

_NEW_MODE: Final = 0o644


def write_atomically(path: Path, raw: bytes) -> None:
    """Write bytes atomically: readers see the old file or the new one. Raises OSError.

    Where `path` is a link its target is replaced. A file that was there keeps its mode, and its
    owner where this process may give files away.
    """
    path = path.resolve()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        _copy_access(path, Path(temporary))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _copy_access(path: Path, temporary: Path) -> None:
    """Give a new file the mode and the owner of the one that it will replace."""
    try:
        before = path.stat()
    except FileNotFoundError:
        temporary.chmod(_NEW_MODE)
        return
    if sys.platform != "win32":
        with contextlib.suppress(PermissionError):
            os.chown(temporary, before.st_uid, before.st_gid)
    # After that: a change of owner takes some bits away.
    temporary.chmod(S_IMODE(before.st_mode))
