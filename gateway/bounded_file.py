"""Whole small files, read so that nothing hangs: regular files only, and only so many bytes.

A pipe has no end until its writer says so, a device may have none; opening the one or reading the
other would hold up whoever asks. What is opened here is looked at before a byte is read.
"""

import os
import stat
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 64 * 1024 * 1024


def read_bounded_file(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a regular file's bytes. Raises OSError, whose `strerror` says what is wrong."""
    # Without O_NONBLOCK the open itself waits for a pipe's writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        _check_regular(os.fstat(handle).st_mode, path)
        # One byte more than may be: a file that grows while it is read is over the bound too.
        raw = file.read(most_bytes + 1)
    if len(raw) > most_bytes:
        raise OSError(None, f"is over {most_bytes} bytes", str(path))
    return raw


FileSignature = tuple[int, int, int]
"""Inode, time of the last change in ns, size: another one is another content."""


def sign_file(path: Path | None) -> FileSignature | None:
    """Return what changes when a file does; None where there is none."""
    if path is None:
        return None
    try:
        # stat follows the symlinks, so a swapped link shows as another inode.
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def check_regular_file(path: Path) -> None:
    """Raise OSError where `path` is no regular file: a library that reads it would hang."""
    _check_regular(path.stat().st_mode, path)


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(None, "Is a directory", str(path))
    if not stat.S_ISREG(mode):
        kind = (
            "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        )
        raise OSError(None, f"is {kind}, not a regular file", str(path))
