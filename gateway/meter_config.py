"""meter.yaml -> frozen structs; the structs are the one place where a key is defined."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from gateway import structured
from gateway.server_url import check_prometheus_url, check_server_url, server_root

SourceName = Literal["auto", "nvml", "rapl", "dcgm", "file", "simulator"]
SOURCES: tuple[str, ...] = get_args(SourceName)
HostSourceName = Literal["auto", "rapl", "none"]
_NEED_URL = ("dcgm", "simulator")

Hertz = Annotated[float, Meta(ge=1.0, le=200.0)]


class MeteredBackend(Struct, frozen=True, forbid_unknown_fields=True):
    """One vLLM server beside the meter: its URL there, and what gateways call it."""

    url: str
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_server_url("url", self.url)

    @property
    def root_url(self) -> str:
        """The server's root."""
        return server_root(self.url)


class LedgerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A set of devices and the backends that share them."""

    name: str = "default"
    source: SourceName = "auto"
    devices: tuple[str | int, ...] = ()
    url: str | None = None
    backends: tuple[MeteredBackend, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ValueError("name: letters, digits and . _ - only, and at most 64 of them")
        if self.source in _NEED_URL and self.url is None:
            raise ValueError(f"url: the source {self.source} needs one")
        if self.source not in _NEED_URL and self.url is not None:
            raise ValueError(f"url: the source {self.source} has none")
        if self.source == "file" and len(self.devices) != 1:
            raise ValueError("devices: the source file needs one, the path of its file")
        if self.url is not None:
            check = check_prometheus_url if self.source == "dcgm" else check_server_url
            check("url", self.url)


class MeterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; `secret_file` names a file that holds the secret."""

    ledgers: Annotated[tuple[LedgerConfig, ...], Meta(min_length=1)] = (LedgerConfig(),)
    secret: str | None = None
    secret_file: str | None = None
    allow_unauthenticated: bool = False
    """Whether anybody who reaches it may post events, where it listens beyond loopback."""
    hz: Hertz = 20.0
    host: HostSourceName = "auto"
    """What the server draws without accelerators, for the gateways' `boundary`."""
    powercap: str = "/sys/class/powercap"
    """Where RAPL's files are for `host`: containers are shown them elsewhere, if at all."""

    def __post_init__(self) -> None:
        names: set[str] = set()
        called: set[str] = set()
        for index, ledger in enumerate(self.ledgers):
            if ledger.name in names:
                raise ValueError(f"ledgers[{index}].name: {ledger.name!r} is listed twice")
            names.add(ledger.name)
            for place, backend in enumerate(ledger.backends):
                for name in (backend.root_url, *backend.names):
                    if name in called:
                        raise ValueError(
                            f"ledgers[{index}].backends[{place}]: {name!r} is listed twice"
                        )
                    called.add(name)
        structured.check_secret_or_file("secret", self.secret, self.secret_file)


def load_meter_config(path: Path) -> MeterConfig:
    """Read a configuration file. Raises ConfigError; relative paths in it start at its folder."""
    config = structured.read_struct(path, MeterConfig)
    secret = structured.read_secret(config.secret, config.secret_file, path.parent, "secret")
    return msgspec.structs.replace(config, secret=secret, secret_file=None)


def build_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    return structured.build_json_schema(MeterConfig)
