"""The config's `admin`, `serving_tls` and `upstream_networks`: who comes in, and what is asked."""

import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.bounded_file import check_regular_file
from gateway.structured import ConfigError, check_secret_or_file, read_secret


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


class ServingTlsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files of the certificate that clients are shown; read anew when they change.

    With `client_ca_file` only clients with a certificate of these authorities are let in.
    """

    cert_file: str
    key_file: str
    client_ca_file: str | None = None

    def list_files(self) -> list[Path]:
        """Return the files there are."""
        named = (self.cert_file, self.key_file, self.client_ca_file)
        return [Path(name) for name in named if name is not None]

    def make_context(self) -> ssl.SSLContext:
        """Return the server's side of TLS. Raises OSError."""
        for path in self.list_files():
            check_regular_file(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self.cert_file, self.key_file)
        if self.client_ca_file is not None:
            context.load_verify_locations(self.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def load_serving_tls(found: ServingTlsConfig | None, folder: Path) -> ServingTlsConfig | None:
    """Return it with paths that start at the file's folder, tried once. Raises ConfigError."""
    if found is None:
        return None
    loaded = ServingTlsConfig(
        str(folder / found.cert_file),
        str(folder / found.key_file),
        found.client_ca_file and str(folder / found.client_ca_file),
    )
    try:
        loaded.make_context()
    except OSError as error:
        names = ", ".join(map(str, loaded.list_files()))
        raise ConfigError(f"serving_tls: {names}: {error.strerror or error}") from None
    return loaded


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
