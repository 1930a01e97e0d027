"""A profile file and the one before it: FILE.previous, byte for byte, so that it can come back.

Rules: each of the two files is replaced whole; the one before is in its place before the new one
is, so that there is no moment without a way back.
"""

from collections.abc import Mapping
from pathlib import Path

from calibration.tables.columns import BadInput
from gateway import profile
from gateway.profile import ModelProfile


class Changed(Exception):
    """The profile was replaced by someone else meanwhile."""


def beside(path: Path) -> Path:
    """Return where the profile before is kept."""
    return path.with_name(f"{path.name}.previous")


def replace(models: Mapping[str, ModelProfile], path: Path, parent: str | None) -> str:
    """Write a profile and keep the one that was there; return the new version.

    Raises Changed where the file no longer is version `parent`, OSError, ProfileError.
    """
    lengths = None
    if path.exists():
        old = path.read_bytes()
        if parent is not None:
            before = profile.parse(old, str(path))
            lengths = before.lengths
            if before.version != parent:
                raise Changed(f"{path}: was replaced meanwhile, so nothing was written")
        profile.write_whole(beside(path), old)
    profile.save(models, path, lengths)
    return profile.load(path).version


def exchange(path: Path) -> tuple[str, str]:
    """Exchange a profile with the one before; return the versions that were there and are now.

    Raises BadInput where there is none before, ProfileError where either is bad, OSError.
    """
    before = beside(path)
    if not before.exists():
        raise BadInput(f"{before}: is not there, so there is nothing to go back to")
    now, then = profile.load(path), profile.load(before)
    old, new = path.read_bytes(), before.read_bytes()
    profile.write_whole(path, new)
    profile.write_whole(before, old)
    return now.version, then.version
