"""The config's keys for API keys. Part of `gateway.config`."""

from msgspec import Struct


class KeysConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use this gateway: `file`, written by `joulegate keys`, has a digest of each key.

    Without `keys` everybody may. The file is read again when it changes; a bad one is refused
    whole, and the keys that were good stay in force.
    """

    file: str

    def __post_init__(self) -> None:
        if not self.file:
            raise ValueError("file: is empty")
