"""A month's joules and money as FOCUS CSV: a row for each day, model, tenant and preset.

Rules of this file:

- Columns are those that FOCUS 1.4 (https://focus.finops.org) asks of Cost and Usage of who sends no
  invoices, has no price list, regions or discounts, and splits costs; what is not FOCUS's begins
  with `x_`. Numbers are written out: FOCUS allows no exponents.
- What a model cost on a day is FOCUS's origin charge. Its rows are that charge split: tenant and
  preset in `Allocated…`, all else alike, ratios that add up to 1; what is nobody's is allocated to
  none.
- Money is the facility's (`joulegate_cost_total`) of requests, divided among a model's rows by
  their joules; idle and other are rows of their own, of no tenant. So a month's rows add up to what
  was counted. Without `boundary` costs are 0 in XXX, ISO 4217's code for no currency.
- A day's figures are Prometheus's own `increase` over it: extrapolated by up to a scrape interval.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from calibration.recalibrate.prometheus import PrometheusClient, create_client
from calibration.savings.options import SavingsOptions
from calibration.tables.columns import BadInput
from gateway.console import OK
from gateway.utc_time import format_time

_NONE: Final = "none"
_NOBODYS: Final = ("idle", "other")
_NO_CURRENCY: Final = "XXX"
_UNIT: Final = "Kilowatt-Hours"
_COSTS: Final = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
_PROVIDERS: Final = ("HostProviderName", "InvoiceIssuerName", "ServiceProviderName")
_METHOD: Final = "joulegate/metered-joules"
"""The method of splitting that docs/savings.md tells."""
COLUMNS: Final = (
    "AllocatedMethodDetails", "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName",
    "AllocatedTags", "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit",
    "ContractedCost", "EffectiveCost", "HostProviderName", "InvoiceIssuerName", "ListCost",
    "PricingQuantity", "PricingUnit", "ResourceId", "ResourceName", "ResourceType",
    "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory",
    "x_Preset", "x_Joules", "x_Co2eGrams", "x_PromptTokens", "x_CompletionTokens",
    "x_SciGramsPer1000Tokens",
)  # fmt: skip

_Key = tuple[str, str, str]
"""Model, tenant, preset; idle and other stand in the preset's place, of tenant none."""


class _DayFigures(NamedTuple):
    """What one day added."""

    joules: dict[_Key, float]
    grams: dict[_Key, float]
    tokens: dict[tuple[_Key, str], float]
    cost: dict[tuple[str, str], float]
    """By model and kind."""
    currency: str


def export_month(options: SavingsOptions, at: float) -> int:
    """Print a month as FOCUS CSV; return the exit code. Raises BadInput, PrometheusError."""
    begin = _parse_month(options.focus or "")
    end = (begin + timedelta(days=32)).replace(day=1)
    if begin.timestamp() > at:
        raise BadInput(f"--focus: {options.focus} has not begun")
    with create_client(options.prometheus, options.access) as server:
        writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
        writer.writeheader()
        day = begin
        while day < end and day.timestamp() < at:
            following = day + timedelta(days=1)
            figures = _read_day(server, day, min(following.timestamp(), at))
            for row in _make_rows(figures):
                writer.writerow(
                    {
                        **row,
                        "BillingPeriodStart": format_time(begin.timestamp()),
                        "BillingPeriodEnd": format_time(end.timestamp()),
                        "ChargePeriodStart": format_time(day.timestamp()),
                        "ChargePeriodEnd": format_time(following.timestamp()),
                    }
                )
            day = following
    return OK


def _parse_month(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise BadInput(f"--focus: {text!r} is no month like 2026-11") from None


def _read_day(server: PrometheusClient, day: datetime, until: float) -> _DayFigures:
    # Whole minutes: the range of one below has its sample there.
    until -= until % 60
    seconds = max(60, int(until - day.timestamp()))

    def added(metric: str, by: str) -> Iterator[tuple[dict[str, str], float]]:
        selected = server.select_series(f"joulegate_{metric}")
        query = f"(sum by ({by}) (increase({selected}[{seconds}s])))[1m:1m]"
        for one in server.query_matrix(query, until).series:
            if one.values and float(one.values[-1][1]) > 0.0:
                yield one.metric, float(one.values[-1][1])

    joules: dict[_Key, float] = defaultdict(float)
    for labels, value in added("energy_joules_total", "model, method, tenant, preset"):
        method = labels.get("method", "")
        joules[_find_key(labels, method if method in _NOBODYS else None)] += value
    grams = {
        _find_key(labels): value
        for labels, value in added("co2e_grams_total", "model, tenant, preset")
    }
    tokens = {
        (_find_key(labels), labels.get("type", "")): value
        for labels, value in added("tokens_total", "model, type, tenant, preset")
    }
    cost: dict[tuple[str, str], float] = {}
    currency = _NO_CURRENCY
    for labels, value in added("cost_total", "model, kind, currency"):
        cost[labels.get("model", ""), labels.get("kind", "")] = value
        currency = labels.get("currency", currency)
    return _DayFigures(dict(joules), grams, tokens, cost, currency)


def _find_key(labels: dict[str, str], nobodys: str | None = None) -> _Key:
    model = labels.get("model", "")
    if nobodys is not None:
        return model, "", nobodys
    return model, labels.get("tenant", _NONE), labels.get("preset", _NONE)


def _make_rows(day: _DayFigures) -> Iterator[dict[str, str]]:
    costs = _split_costs(day)
    total_joules: dict[str, float] = defaultdict(float)
    total_cost: dict[str, float] = defaultdict(float)
    for key, joules in day.joules.items():
        total_joules[key[0]] += joules
        total_cost[key[0]] += costs[key]
    for key, joules in sorted(day.joules.items()):
        model, tenant, preset = key
        cost = costs[key]
        whole = total_cost[model]
        ratio = cost / whole if whole else joules / total_joules[model]
        generated = day.tokens.get((key, "completion"), 0.0)
        grams = day.grams.get(key)
        kwh = _write_number(joules / 3.6e6)
        yield {
            "AllocatedMethodDetails": (
                f'{{"Elements": [{{"AllocatedRatio": {_write_number(ratio)}, '
                f'"UsageUnit": "{_UNIT}", "UsageQuantity": {kwh}}}]}}'
            ),
            "AllocatedMethodId": _METHOD,
            "AllocatedResourceId": tenant,
            "AllocatedResourceName": tenant,
            "AllocatedTags": json.dumps({"joulegate/preset": preset}) if tenant else "",
            **dict.fromkeys(_COSTS, _write_number(cost)),
            "BillingAccountId": "joulegate",
            "BillingAccountName": "Joulegate",
            "BillingCurrency": day.currency,
            "ChargeCategory": "Usage",
            "ChargeDescription": f"energy of {model}",
            "ChargeFrequency": "Usage-Based",
            **dict.fromkeys(("ConsumedQuantity", "PricingQuantity"), kwh),
            **dict.fromkeys(("ConsumedUnit", "PricingUnit"), _UNIT),
            **dict.fromkeys(_PROVIDERS, "self-hosted"),
            "ResourceId": model,
            "ResourceName": model,
            "ResourceType": "Model",
            "ServiceCategory": "AI and Machine Learning",
            "ServiceSubcategory": "Generative AI",
            "ServiceName": "Joulegate",
            "x_Preset": preset if tenant else "",
            "x_Joules": _write_number(joules),
            "x_Co2eGrams": "" if grams is None else _write_number(grams),
            "x_PromptTokens": _write_number(day.tokens.get((key, "prompt"), 0.0)),
            "x_CompletionTokens": _write_number(generated),
            "x_SciGramsPer1000Tokens": (
                _write_number(1000 * grams / generated) if grams and generated else ""
            ),
        }


def _split_costs(day: _DayFigures) -> dict[_Key, float]:
    """Return each row's cost: requests' by their joules, idle and other as they were counted."""
    owned: dict[str, float] = defaultdict(float)
    for (model, tenant, _), joules in day.joules.items():
        owned[model] += joules if tenant else 0.0
    return {
        (model, tenant, preset): (
            day.cost.get((model, "requests"), 0.0) * joules / owned[model]
            if tenant
            else day.cost.get((model, preset), 0.0)
        )
        for (model, tenant, preset), joules in day.joules.items()
    }


def _write_number(value: float) -> str:
    """Return a number in digits alone, as FOCUS's NumericFormat asks."""
    return format(Decimal(repr(value)), "f")
