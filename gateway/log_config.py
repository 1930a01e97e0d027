"""The config's `log`: which files requests are logged in. Part of `gateway.config`."""

from pathlib import Path

import msgspec
from msgspec import Struct


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where decisions are logged: a file that gets one JSON object per line, or nowhere.

    `access` likewise gets a short line per request: who asked, from where, what came of it.
    `features` adds the prompt's hashed words (a dictionary inverts them), `prompts` its text: what
    `joulegate accuracy train --from-log` needs one of.
    """

    decisions: str | None = None
    access: str | None = None
    features: bool = False
    prompts: bool = False


def load_log(log: LogConfig, folder: Path) -> LogConfig:
    """Return it with paths that start at `folder`."""
    return msgspec.structs.replace(
        log,
        decisions=log.decisions and str(folder / log.decisions),
        access=log.access and str(folder / log.access),
    )
