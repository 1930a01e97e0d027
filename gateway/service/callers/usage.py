"""What one request adds to its key's totals, in whole numbers, and how the totals are told."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.service.callers.key_limits import MILLIONTHS
from gateway.telemetry.baselines import BASELINES, find_baselines
from gateway.telemetry.record import RequestRecord

_JOULES: Final = "joules:"
_BASELINE: Final = "baseline:"
_MONEY: Final = "money"
_GRAMS: Final = "co2e_grams"
_TOKEN_TYPES: Final = ("prompt", "cached", "completion")


def name_usage(key_id: str, month: str) -> str:
    """Return the account of a key's totals in a month."""
    return f"usage:{key_id}:{month}"


def count_usage(record: RequestRecord) -> dict[str, int]:
    """Return what a request whose joules are final took: joules, grams and money in millionths."""
    served, settled = record.served, record.settled
    found: dict[str, int] = {"requests": 1} if record.model else {}
    for kind, count in zip(
        _TOKEN_TYPES,
        (served.prompt_tokens, served.cached_tokens, served.completion_tokens),
        strict=True,
    ):
        if count:
            found[f"tokens:{kind}"] = count
    if settled is not None:
        parts = [(settled.joules, settled.method)]
        parts += [(wasted.joules, wasted.method) for wasted in settled.wasted]
        for joules, method in parts:
            if joules and method is not None:
                name = f"{_JOULES}{method}"
                found[name] = found.get(name, 0) + round(joules * MILLIONTHS)
        if settled.co2e_grams:
            found[_GRAMS] = round(settled.co2e_grams * MILLIONTHS)
    if record.boundary is not None and record.boundary.own.cost:
        found[_MONEY] = round(record.boundary.own.cost * MILLIONTHS)
    baselines = find_baselines(record)
    if baselines is not None:
        for name, joules in zip(BASELINES, baselines, strict=True):
            found[f"{_BASELINE}{name}"] = round(joules * MILLIONTHS)
    return found


def count_amount(usage: Mapping[str, int], unit: str) -> int:
    """Return what counts for a budget: microjoules, tokens, or millionths of money."""
    if unit == "joules":
        return sum(of for name, of in usage.items() if name.startswith(_JOULES))
    if unit == "tokens":
        return usage.get("tokens:prompt", 0) + usage.get("tokens:completion", 0)
    return usage.get(_MONEY, 0)


def describe_usage(totals: Mapping[str, int], currency: str | None) -> dict[str, Any]:
    """Return totals in their public shape."""
    chosen = totals.get(f"{_BASELINE}{BASELINES[0]}", 0)
    joules = {
        name.removeprefix(_JOULES): of / MILLIONTHS
        for name, of in sorted(totals.items())
        if name.startswith(_JOULES)
    }
    return {
        "requests": totals.get("requests", 0),
        "tokens": {kind: totals.get(f"tokens:{kind}", 0) for kind in _TOKEN_TYPES},
        "joules": {**joules, "total": count_amount(totals, "joules") / MILLIONTHS},
        "co2e_grams": totals.get(_GRAMS, 0) / MILLIONTHS,
        "cost": {"amount": totals.get(_MONEY, 0) / MILLIONTHS, "currency": currency},
        "predicted_joules_saved": {
            name: (totals.get(f"{_BASELINE}{name}", 0) - chosen) / MILLIONTHS
            for name in BASELINES[1:]
        },
    }
