"""A profile file and the one before it: FILE.previous, byte for byte, so that it can come back.

Rules: each of the two files is replaced whole; the one before is in its place before the new one
is, so that there is no moment without a way back.
"""

from collections.abc import Mapping
from pathlib import Path

from calibration.tables.columns import BadInput
from gateway import profile
from gateway.accuracy_profile import AccuracyByPrompt
from gateway.atomic_file import write_atomically
from gateway.profile import ModelProfile, WordsRegression


class ProfileChanged(Exception):
    """The profile was replaced by someone else meanwhile."""


def get_previous_path(path: Path) -> Path:
    """Return where the profile before is kept."""
    return path.with_name(f"{path.name}.previous")


def replace_profile(
    models: Mapping[str, ModelProfile],
    path: Path,
    parent: str | None,
    lengths: Mapping[str, WordsRegression] | None = None,
    accuracy_by_prompt: AccuracyByPrompt | None = None,
) -> str:
    """Write a profile and keep the one that was there; return the new version.

    Raises ProfileChanged where the file no longer is version `parent`, OSError, ProfileError.
    """
    if path.exists():
        old = path.read_bytes()
        if parent is not None and profile.parse_profile(old, str(path)).version != parent:
            raise ProfileChanged(f"{path}: was replaced meanwhile, so nothing was written")
        write_atomically(get_previous_path(path), old)
    profile.save_profile(models, path, lengths, accuracy_by_prompt)
    return profile.load_profile(path).version


def exchange_profiles(path: Path) -> tuple[str, str]:
    """Exchange a profile with the one before; return the versions that were there and are now.

    Raises BadInput where there is none before, ProfileError where either is bad, OSError.
    """
    before = get_previous_path(path)
    if not before.exists():
        raise BadInput(f"{before}: is not there, so there is nothing to go back to")
    now, then = profile.load_profile(path), profile.load_profile(before)
    old, new = path.read_bytes(), before.read_bytes()
    write_atomically(path, new)
    write_atomically(before, old)
    return now.version, then.version
