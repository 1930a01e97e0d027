"""Files that are looked at until they have changed, and are then read by whoever asked.

A change is told once the files have been still for one look, so that what is being written is not
taken for whole.
"""

from pathlib import Path

from gateway.bounded_file import FileSignature, sign_file
from gateway.daemon_thread import run_in_daemon_thread


class ChangedFiles:
    """Files that were read, and what they were like then."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._read = self._seen = self._sign_files()
        self._requested = False

    def request_read(self) -> None:
        """Have the next look tell of a change, whether there is one or not."""
        self._requested = True

    async def look(self) -> bool:
        """Tell whether they are to be read anew: since the last such answer they have changed."""
        # Looking at a file takes for ever where its file system hangs.
        found = await run_in_daemon_thread(self._sign_files)
        still, self._seen = found == self._seen, found
        if not self._requested and (not still or found == self._read):
            return False
        self._requested, self._read = False, found
        return True

    def _sign_files(self) -> list[FileSignature | None]:
        return [sign_file(path) for path in self._paths]
