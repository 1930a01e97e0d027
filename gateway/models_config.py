"""The config's `models`: what clients may ask for, and the servers that answer."""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.server_url import check_meter_url, check_server_url, server_root
from gateway.structured import check_secret_or_file, read_secret
from gateway.tls_config import TlsConfig, load_tls

Capability = Literal["chat", "completions", "embeddings", "tools", "images", "audio", "logprobs"]


class BackendConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One vLLM server: its root URL, the key it wants and the meter beside it.

    `api_key_file` names a file that holds the key. A meter that keeps several ledgers is given with
    the ledger's name as the path; `tls` replaces the whole file's.
    """

    url: str
    api_key: str | None = None
    api_key_file: str | None = None
    meter: str | None = None
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        check_server_url("url", self.url)
        if self.meter is not None:
            check_meter_url("meter", self.meter)
        check_secret_or_file("api_key", self.api_key, self.api_key_file)

    @property
    def root_url(self) -> str:
        """The server's root."""
        return server_root(self.url)


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment: a model on one kind of hardware with one cost profile.

    The same `name` may be listed several times, each with its own `deployment`. Beyond
    `max_running` requests at once others are sent to the next best, or wait. `wake_seconds` is how
    long a request that nobody else can serve waits for the first backend, where the model may be
    scaled to none; 0: not at all.
    """

    name: str
    context: Annotated[int, Meta(ge=2)]
    backends: Annotated[tuple[BackendConfig, ...], Meta(min_length=1)]
    profile: str | None = None
    served_name: str | None = None
    deployment: str | None = None
    capabilities: tuple[Capability, ...] = ("chat", "completions", "logprobs")
    max_running: Annotated[int, Meta(ge=1)] | None = None
    wake_seconds: Annotated[float, Meta(ge=0.0, le=7200.0)] = 0.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", self.name):
            raise ValueError("name: letters, digits and . _ / - only, and at most 128 of them")
        if self.name.removeprefix("joulegate/") == "auto":
            raise ValueError("name: 'auto' is the gateway's own")

    @property
    def deployment_label(self) -> str:
        """What tells this deployment from others of the same model."""
        return self.deployment or self.name


def check_same_server(where: str, backend: BackendConfig, first: BackendConfig) -> None:
    """Raise ValueError where two models say different things of the one server they share."""
    for key in ("api_key", "meter", "tls"):
        if getattr(backend, key) != getattr(first, key):
            raise ValueError(
                f"{where}.{key}: differs from what another model says of {backend.root_url}; "
                "one server has one"
            )


def load_model(model: ModelConfig, folder: Path) -> ModelConfig:
    """Return a model with the files of its backends' TLS and keys read. Raises ConfigError."""
    return msgspec.structs.replace(
        model, backends=tuple(_load_backend(backend, folder) for backend in model.backends)
    )


def _load_backend(backend: BackendConfig, folder: Path) -> BackendConfig:
    return msgspec.structs.replace(
        backend,
        api_key=read_secret(
            backend.api_key, backend.api_key_file, folder, f"{backend.url}: api_key"
        ),
        api_key_file=None,
        tls=load_tls(backend.tls, folder, f"{backend.url}: tls"),
    )
