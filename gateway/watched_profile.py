"""A profile file that may change while the gateway serves.

The last good one stays in force when a new one is bad.
"""

from pathlib import Path

from gateway.bounded_file import FileSignature, sign_file
from gateway.profile import CostProfile, load_profile


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

    def _read_signature(self) -> tuple[FileSignature | None, FileSignature | None]:
        return sign_file(self._path), sign_file(self._learnt)
