"""A file of API keys for a test's gateway."""

from dataclasses import dataclass
from pathlib import Path

from gateway.keys_config import KeysConfig
from gateway.keys_file import KeyEntry, KeysFile, make_key, write_keys


@dataclass
class KeyRing:
    """The file, and every key that was put into it."""

    path: Path

    def __post_init__(self):
        self.entries: list[KeyEntry] = []
        self.write()

    def add(self, tenant, **permissions):
        """A new key; returns the headers that carry it."""
        key, entry = make_key(tenant, **permissions)
        self.entries.append(entry)
        self.write()
        return {"authorization": f"Bearer {key}"}

    def write(self):
        write_keys(self.path, KeysFile(tuple(self.entries)))

    def config(self, **fields):
        return KeysConfig(str(self.path), **fields)
