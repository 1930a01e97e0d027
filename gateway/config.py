"""gateway.yaml -> frozen structs; every error says where in the file it is.

The structs are the one place where a key is defined: the reference page and the JSON Schema
(`joulegate check --schema`) are generated from them.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Meta, Struct

from gateway.scheduling.decide import POLICIES
from gateway.scheduling.decision import PRESETS, Weights

_Struct = TypeVar("_Struct", bound=Struct)

Policy = Annotated[str, Meta(extra_json_schema={"enum": list(POLICIES)})]
Capability = Literal["chat", "completions", "embeddings", "tools", "images", "audio", "logprobs"]
Seconds = Annotated[float, Meta(gt=0.0, le=604_800.0)]
Weight = Annotated[float, Meta(ge=0.0)]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says where and what."""


class WeightsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of the three metrics; a missing one counts 0, and they are scaled to sum 1."""

    accuracy: Weight = 0.0
    energy: Weight = 0.0
    time: Weight = 0.0

    def __post_init__(self) -> None:
        self.weights()

    def weights(self) -> Weights:
        """Return them normalised. Raises ValueError where all are 0."""
        return Weights.of(self.accuracy, self.energy, self.time)


class PresetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A named set of weights, asked for as `auto:NAME`."""

    weights: WeightsConfig


class BackendConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One vLLM server: its root URL, the key it wants and the meter beside it."""

    url: str
    api_key: str | None = None
    meter: str | None = None

    def __post_init__(self) -> None:
        _check_url("url", self.url)
        if self.meter is not None:
            _check_url("meter", self.meter)
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("api_key: must be printable ASCII, it is sent as a header")

    @property
    def root(self) -> str:
        """The server's root without a trailing slash or /v1, whichever way it was written."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment: a model on one kind of hardware with one cost profile.

    The same `name` may be listed several times, each with its own `deployment`.
    """

    name: str
    context: Annotated[int, Meta(ge=2)]
    backends: Annotated[tuple[BackendConfig, ...], Meta(min_length=1)]
    profile: str | None = None
    served_name: str | None = None
    deployment: str | None = None
    capabilities: tuple[Capability, ...] = ("chat", "completions", "logprobs")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", self.name):
            raise ValueError("name: letters, digits and . _ / - only, and at most 128 of them")
        if self.name.removeprefix("joulegate/") == "auto":
            raise ValueError("name: 'auto' is the gateway's own")

    @property
    def label(self) -> str:
        """What tells this deployment from others of the same model."""
        return self.deployment or self.name


class TimeoutsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Deadlines, in seconds."""

    connect_seconds: Seconds = 2.0
    first_token_seconds: Seconds = 120.0
    unary_seconds: Seconds = 600.0
    stall_seconds: Seconds = 60.0
    body_seconds: Seconds = 30.0
    drain_seconds: Seconds = 30.0


class HealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a backend is left alone, and when it is tried again."""

    probe_seconds: Seconds = 1.0
    idle_probe_seconds: Seconds = 5.0
    probe_timeout_seconds: Seconds = 5.0
    eject_after_failures: Annotated[int, Meta(ge=1)] = 5
    eject_seconds: Seconds = 30.0
    eject_max_seconds: Seconds = 300.0


class RetryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the traffic may be attempts beyond a request's first."""

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 4
    budget_ratio: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    budget_floor: Annotated[int, Meta(ge=0)] = 3


class LimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes that bound what one client or backend can make the gateway hold."""

    max_body_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    max_answer_bytes: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    requests_kept: Annotated[int, Meta(ge=0)] = 1000


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where decisions are logged: a file that gets one JSON object per line, or nowhere."""

    decisions: str | None = None


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    models: Annotated[tuple[ModelConfig, ...], Meta(min_length=1)]
    profile: str | None = None
    policy: Policy = "fair-ols"
    weights: WeightsConfig = WeightsConfig(accuracy=0.5, energy=0.3, time=0.2)
    presets: dict[str, PresetConfig] = {}
    timeouts: TimeoutsConfig = TimeoutsConfig()
    health: HealthConfig = HealthConfig()
    retry: RetryConfig = RetryConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    cors_origins: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            close = difflib.get_close_matches(self.policy, POLICIES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(POLICIES)}"
            raise ValueError(f"policy: {self.policy!r} is not a policy ({hint})")
        seen: set[tuple[str, str]] = set()
        urls: set[str] = set()
        for index, model in enumerate(self.models):
            key = (model.name, model.label)
            if key in seen:
                raise ValueError(
                    f"models[{index}]: {model.name!r} is listed twice; give each a `deployment` "
                    "of its own"
                )
            seen.add(key)
            for place, backend in enumerate(model.backends):
                if backend.root in urls:
                    raise ValueError(
                        f"models[{index}].backends[{place}].url: {backend.root} is listed twice"
                    )
                urls.add(backend.root)
        for name in self.presets:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
                raise ValueError(f"presets.{name}: lower-case letters, digits, _ and - only")

    def preset_weights(self) -> dict[str, Weights]:
        """Return every preset's weights by name, the built-in ones included."""
        mine = {name: preset.weights.weights() for name, preset in self.presets.items()}
        return {**PRESETS, **mine}


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError; relative paths in it start at its folder."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: {reason}") from None
    config = parse(text, str(path))
    return msgspec.structs.replace(
        config,
        profile=config.profile and str(path.parent / config.profile),
        log=LogConfig(config.log.decisions and str(path.parent / config.log.decisions)),
    )


def parse(text: str, origin: str, environ: Mapping[str, str] = os.environ) -> Config:
    """Validate a configuration's text; `origin` names it in errors. Raises ConfigError."""
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, stricter on keys
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{origin}: not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin}: must be a mapping that has `models`")
    try:
        tree = _substitute(tree, "", origin, environ)
    except RecursionError:
        raise ConfigError(f"{origin}: refers to itself") from None
    try:
        # One by one first, because msgspec does not name the key of a mapping in its errors.
        if isinstance(tree.get("presets"), dict):
            for name, preset in tree["presets"].items():
                _convert(preset, PresetConfig, f"presets.{name}", origin)
        return _convert(tree, Config, "", origin)
    except RecursionError:
        raise ConfigError(f"{origin}: refers to itself") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file."""
    schema = msgspec.json.schema(Config)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice instead of dropping the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _substitute(value: Any, path: str, origin: str, environ: Mapping[str, str]) -> Any:
    """Replace ${NAME} in every string by the environment's value."""
    if isinstance(value, dict):
        return {
            key: _substitute(item, f"{path}.{key}".lstrip("."), origin, environ)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _substitute(item, f"{path}[{index}]", origin, environ)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        try:
            return environ[match[1]]
        except KeyError:
            raise ConfigError(
                f"{origin}: {path}: the environment variable {match[1]} is not set"
            ) from None

    return _VARIABLE.sub(replace, value)


def _convert(tree: Any, struct: type[_Struct], prefix: str, origin: str) -> _Struct:
    try:
        return msgspec.convert(tree, struct)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(str(error), struct, prefix)}") from None


def _explain(message: str, root: type[Struct], prefix: str) -> str:
    """Turn msgspec's `what - at `$.path`` into `path: what`, with a suggestion for a typo."""
    what, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").lstrip(".")
    full = ".".join(part for part in (prefix, path) if part)
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        what = f"unknown key {unknown[1]!r}"
        known = _keys_at(path, root)
        close = difflib.get_close_matches(unknown[1], known, n=1)
        what += f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"
    return f"{full}: {what}" if full else what


def _keys_at(path: str, root: type[Struct]) -> list[str]:
    """Return the keys that the struct at a path such as `models[0].backends[1]` has."""
    struct: Any = msgspec.inspect.type_info(root)
    for name in re.findall(r"\.?([A-Za-z_]\w*)|\[", path):
        if isinstance(struct, msgspec.inspect.StructType):
            struct = next((field.type for field in struct.fields if field.name == name), struct)
        elif isinstance(struct, msgspec.inspect.VarTupleType):
            struct = struct.item_type
    if not isinstance(struct, msgspec.inspect.StructType):
        return []
    return [field.name for field in struct.fields]


def _check_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is a plain http(s) address of a server."""
    try:
        parts = urlsplit(url)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"{key}: {url!r} is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_sane:
        raise ValueError(f"{key}: {url!r} must look like http://host:port")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"{key}: must not have a query, a fragment or credentials")
