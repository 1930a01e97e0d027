"""One run at a time on a file that is appended to."""

import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


def lock_file(path: Path, descriptor: int, refusal: type[ValueError]) -> None:
    """Lock an open file until it is closed. Raises `refusal` where another run has it.

    Windows locks nothing.
    """
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal(f"{path}: another run is writing to it") from None
