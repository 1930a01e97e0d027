"""A profile file that may change while the gateway serves.

The last good one stays in force when a new one is bad.
"""

from pathlib import Path

from gateway.profile import CostProfile, load_profile

_FileSignature = tuple[int, int, int]


class WatchedProfileFile:
    """A profile file that may change under us (editors, ConfigMap symlink swaps).

    So may the learnt one beside it, which may also come and go.
    """

    def __init__(self, path: Path | None, learnt: Path | None = None) -> None:
        self._path, self._learnt = path, learnt
        self._signature = self._read_signature()
        self.current_profile = load_profile(path, learnt)

    def has_changed(self) -> bool:
        """Tell whether the file is another than the one last looked at; cheap."""
        return self._read_signature() != self._signature

    def read_profile(self) -> CostProfile:
        """Read the file anew, without taking it into force. Raises ProfileError."""
        self._signature = self._read_signature()
        return load_profile(self._path, self._learnt)

    def _read_signature(self) -> tuple[_FileSignature | None, _FileSignature | None]:
        return _sign_file(self._path), _sign_file(self._learnt)


def _sign_file(path: Path | None) -> _FileSignature | None:
    if path is None:
        return None
    try:
        # stat follows the symlinks, so a swapped link shows as another inode.
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
