"""The file of API keys: a digest, a tenant and what it may do for each; never a key itself.

A key is 256 random bits, so its plain SHA-256 tells nothing of it, and looking that up takes the
same time whatever was sent.
"""

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from gateway.atomic_file import write_atomically
from gateway.config import GatewayConfig, WeightsConfig
from gateway.structured import ConfigError, read_struct
from gateway.telemetry.request_stages import NO_TENANT
from gateway.utc_time import format_now

KEY_PREFIX: Final = "jg-"
_KEY_BYTES: Final = 32
_ID_BYTES: Final = 6

_UNITS: Final = ("joules", "tokens", "money")
Limit = Annotated[float, Meta(gt=0.0, le=1e12)]
PerMinute = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class BudgetEntry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key may spend in an hour, a day or a calendar month (UTC): one of three units.

    `soft`: past it requests go to the cheapest model, where the request does not name one.
    """

    per: Literal["hour", "day", "month"]
    joules: Limit | None = None
    tokens: Limit | None = None
    money: Limit | None = None
    soft: bool = False

    def __post_init__(self) -> None:
        given = [unit for unit in _UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(_UNITS)}")

    def find_limit(self) -> tuple[str, float]:
        """Return the unit and how much of it."""
        unit = next(unit for unit in _UNITS if getattr(self, unit) is not None)
        return unit, getattr(self, unit)


class KeyEntry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key: `id` is its public name, `sha256` the digest of what its holder sends.

    `models` are those that may answer it, `presets` the routed names that it may ask for (`auto`,
    `auto:eco`); without either, all. `weights` are what `auto` starts from. Keys of one `tenant`
    see each other's requests. `priority`: who waits, waits behind those with more of it.
    """

    id: Name
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    tenant: Name
    models: tuple[str, ...] | None = None
    presets: tuple[str, ...] | None = None
    weights: WeightsConfig | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    budgets: tuple[BudgetEntry, ...] = ()
    created: str | None = None
    revoked: str | None = None

    def __post_init__(self) -> None:
        if self.tenant == NO_TENANT:
            raise ValueError(f"tenant: {NO_TENANT!r} stands for requests without a key")
        if self.models == () or (self.models is None and self.presets == ()):
            raise ValueError(f"{self.id}: may use no model; revoke it, or leave the list out")
        kinds = [(one.per, one.find_limit()[0], one.soft) for one in self.budgets]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{self.id}: two budgets are of the same unit for the same time")

    @property
    def has_limits(self) -> bool:
        """Whether something counts against it."""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.budgets)


class KeysFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    keys: tuple[KeyEntry, ...] = ()

    def __post_init__(self) -> None:
        for what in ("id", "sha256"):
            seen: set[str] = set()
            for entry in self.keys:
                value = getattr(entry, what)
                if value in seen:
                    raise ValueError(f"keys: two have the {what} {value!r}")
                seen.add(value)


def hash_key(key: bytes) -> str:
    """Return the digest by which a key is known."""
    return hashlib.sha256(key).hexdigest()


def make_key(tenant: str, **permissions: object) -> tuple[str, KeyEntry]:
    """Return a new key and its entry. Raises ConfigError."""
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    fields = {
        "id": f"key_{secrets.token_hex(_ID_BYTES)}",
        "sha256": hash_key(key.encode()),
        "tenant": tenant,
        "created": format_now(),
        **permissions,
    }
    try:
        return key, msgspec.convert(fields, KeyEntry)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error)) from None


def read_keys(path: Path) -> KeysFile:
    """Read a file of keys. Raises ConfigError."""
    return read_struct(path, KeysFile)


def write_keys(path: Path, keys: KeysFile) -> None:
    """Replace a file of keys; comments in it are lost. Raises OSError."""
    text = yaml.safe_dump(msgspec.to_builtins(keys), sort_keys=False)
    write_atomically(path, text.encode())


def load_keys(config: GatewayConfig) -> tuple[KeyEntry, ...]:
    """Read the config's keys and see that it has what they name. Raises ConfigError."""
    if config.keys is None:
        return ()
    entries = read_keys(Path(config.keys.file)).keys
    check_keys(entries, config)
    return entries


def check_keys(entries: Iterable[KeyEntry], config: GatewayConfig) -> None:
    """See that a config has the models and presets that keys name. Raises ConfigError."""
    models = {model.name for model in config.models}
    presets = {"auto", *(f"auto:{name}" for name in config.preset_weights())}
    for entry in entries:
        for what, named, known in (
            ("models", entry.models, models),
            ("presets", entry.presets, presets),
        ):
            for name in named or ():
                if name not in known and entry.revoked is None:
                    have = ", ".join(sorted(known))
                    raise ConfigError(f"keys: {entry.id}.{what}: {name!r}: none of {have}")
        if config.boundary.price_per_kwh is None and any(one.money for one in entry.budgets):
            raise ConfigError(f"keys: {entry.id}: money needs boundary.price_per_kwh")


def check_sharing(config: GatewayConfig, entries: Iterable[KeyEntry], workers: int) -> None:
    """See that what several processes count together is kept together. Raises ConfigError."""
    alone = config.keys is not None and config.keys.store is None
    if workers > 1 and alone and any(entry.has_limits for entry in entries):
        raise ConfigError("keys: with several workers, rates and budgets need `keys.store`")
