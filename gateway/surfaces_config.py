"""The config's `admin`, the operators' port, and `upstream_networks`, what may be asked."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.structured import check_secret_or_file, read_secret


class AdminConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A port for operators: metrics, requests, draining, none of which clients' port has then.

    `token`, or the one in the file `token_file`, is asked for as a bearer by everything there but
    metrics and probes; beyond loopback it has to be set.
    """

    port: Annotated[int, Meta(ge=0, le=65535)]
    host: str = "127.0.0.1"
    token: str | None = None
    token_file: str | None = None

    def __post_init__(self) -> None:
        check_secret_or_file("token", self.token, self.token_file)
        if self.token is None and self.token_file is None and not _is_loopback(self.host):
            raise ValueError(f"token: has to be set where `host` is beyond loopback ({self.host})")


def load_admin(admin: AdminConfig | None, folder: Path) -> AdminConfig | None:
    """Return it with the token's file read. Raises ConfigError."""
    if admin is None:
        return None
    token = read_secret(admin.token, admin.token_file, folder, "admin.token")
    return msgspec.structs.replace(admin, token=token, token_file=None)


def check_networks(key: str, networks: Iterable[str]) -> None:
    """Raise ValueError where one is no network in CIDR's notation."""
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
