"""The config's keys for API keys. Part of `gateway.config`."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from gateway.structured import ConfigError, check_secret_or_file, read_secret


class KeyStoreConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Redis or Valkey, where gateways share what keys have spent.

    `url` is redis://, rediss:// or unix://, or `url_file` names a file that holds it. A store that
    does not answer within `timeout_seconds` is away: then requests go on uncounted (`open`) or are
    refused (`closed`).
    """

    url: str | None = None
    url_file: str | None = None
    when_away: Literal["open", "closed"] = "open"
    timeout_seconds: Annotated[float, Meta(gt=0.0, le=10.0)] = 0.25

    def __post_init__(self) -> None:
        check_secret_or_file("url", self.url, self.url_file)
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give one of `url` and `url_file`")
        if self.url is not None:
            check_store_url("url", self.url)


class KeysConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use this gateway: `file`, written by `joulegate keys`, has a digest of each key.

    Without `keys` everybody may. The file is read again when it changes; a bad one is refused
    whole, and the keys that were good stay in force. What keys have spent is kept in this process
    until it ends, or in `store`, which several workers or gateways need.
    """

    file: str
    store: KeyStoreConfig | None = None

    def __post_init__(self) -> None:
        if not self.file:
            raise ValueError("file: is empty")


def check_store_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is a store's address; never with its text, nor its parser's."""
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"{key}: must begin with redis://, rediss:// or unix://")
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(
            f"{key}: is not a URL; in a password write / ? # and @ as %2F %3F %23 and %40"
        ) from None


def load_keys_config(keys: KeysConfig | None, folder: Path) -> KeysConfig | None:
    """Return it with paths from `folder` and the store's address read. Raises ConfigError."""
    if keys is None:
        return None
    store = keys.store
    if store is not None:
        url = read_secret(store.url, store.url_file, folder, "keys.store.url")
        try:
            check_store_url("keys.store.url", url or "")
        except ValueError as error:
            raise ConfigError(str(error)) from None
        store = msgspec.structs.replace(store, url=url, url_file=None)
    return msgspec.structs.replace(keys, file=str(folder / keys.file), store=store)
