"""The config's `tracing`: where OpenTelemetry spans go."""

import importlib.util
import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from backends.install_hint import suggest_install
from gateway.server_url import check_url
from gateway.structured import ConfigError


class TracingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where OpenTelemetry spans go: an OTLP/HTTP address with its path, or nowhere.

    A request whose caller sent a trace context follows its word; of the others `sample_ratio` are
    recorded. Without an endpoint here OpenTelemetry's own variables count: see docs/tracing.md.
    """

    endpoint: str | None = None
    sample_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    service_name: Annotated[str, Meta(min_length=1)] = "joulegate"

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            check_url("endpoint", self.endpoint)
        elif (self.sample_ratio, self.service_name) != (1.0, "joulegate"):
            raise ValueError("endpoint: is missing")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "TracingConfig":
        """Read OpenTelemetry's variables. Raises ConfigError."""
        root = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (
            root and f"{root.rstrip('/')}/v1/traces"
        )
        if not endpoint or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return cls()
        ratio = environ.get("OTEL_TRACES_SAMPLER_ARG") or "1"
        name = environ.get("OTEL_SERVICE_NAME") or "joulegate"
        given = {"endpoint": endpoint, "sample_ratio": ratio, "service_name": name}
        try:
            return msgspec.convert(given, cls, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"OTEL_* in the environment, as `tracing`: {error}") from None


def resolve_tracing(given: TracingConfig) -> TracingConfig:
    """Return where spans go, once what it takes is there. Raises ConfigError."""
    tracing = given if given.endpoint is not None else TracingConfig.from_environment(os.environ)
    if tracing.endpoint is not None:
        try:
            found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
        except ModuleNotFoundError:
            found = None
        if found is None or importlib.util.find_spec("opentelemetry.sdk") is None:
            raise ConfigError(
                f"tracing: spans for {tracing.endpoint} need the extra `otel`: "
                f"{suggest_install('otel')}"
            )
    return tracing
