"""A profile file that may change while the gateway serves.

The last good one stays in force when a new one is bad.
"""

from pathlib import Path

from gateway.profile import CostProfile, load_profile


class WatchedProfileFile:
    """A profile file that may change under us (editors, ConfigMap symlink swaps)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signature = self._read_signature()
        self.current_profile = load_profile(path)

    def has_changed(self) -> bool:
        """Tell whether the file is another than the one last looked at; cheap."""
        return self._read_signature() != self._signature

    def read_profile(self) -> CostProfile:
        """Read the file anew, without taking it into force. Raises ProfileError."""
        self._signature = self._read_signature()
        return load_profile(self._path)

    def _read_signature(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            # stat follows the symlinks, so a swapped link shows as another inode.
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
