"""The page for whoever pays: joules, money and CO2e, spent and saved, by tenant, preset and model.

Rules of this file: savings are of routed requests alone, predicted both as chosen and as the rule
they are held against, and never a difference with metered joules; what was measured by a switchback
stands beside them, by name.
"""

# ruff: noqa: INP001 - a script's helper

from collections.abc import Callable

from parts import GRAMS, HERE, JOULES, OF, SHARE, SPAN, Page, Panel, Query, Row

_KWH, _MONEY = "kwatth", "none"
_JOULES_PER_KWH = "3600000"
_ENERGY = f"joulegate_energy_joules_total{{{OF}}}"
_OWNED = f'{_ENERGY[:-1]}, method!~"idle|other"}}'
_BASELINE = f"joulegate_baseline_energy_joules_total{{{HERE}}}"
_DAY = f"namespace_model_method_tenant_preset:joulegate_energy_joules:increase1d{{{OF}}}"
_DAY_OWNED = f'{_DAY[:-1]}, method!~"idle|other"}}'
_DAY_BASELINE = (
    f"namespace_baseline_tenant_preset:joulegate_baseline_energy_joules:increase1d{{{HERE}}}"
)
_COST = f"joulegate_cost_total{{{OF}}}"
_CO2E = f"joulegate_co2e_grams_total{{{OF}}}"
_TOKENS = f'joulegate_tokens_total{{{OF}, type="completion"}}'


def _sum(series: str, by: str = "") -> str:
    """Return the increase over the dashboard's time."""
    return f"sum{f' by ({by})' if by else ''} (increase({series}[{SPAN}]))"


def _of(rule: str, series: str = _BASELINE) -> str:
    return f'{series[:-1]}, baseline="{rule}"}}'


def _saved(by: str) -> str:
    return f"{_sum(_of('most-accurate'), by)} - {_sum(_of('chosen'), by)}"


def _arm(arm: str) -> str:
    """Return joules, idle and other included, per generated token in an arm."""
    where = f'{HERE}, arm="{arm}"'
    energy = f"joulegate_experiment_energy_joules_total{{{where}}}"
    tokens = f'joulegate_experiment_tokens_total{{{where}, type="completion"}}'
    return f"{_sum(energy)} / {_sum(tokens)}"


def _price(by: str) -> str:
    """Return what a currency's bill comes to for each, by its part of the joules."""
    bill = _sum(f'{_COST[:-1]}, kind="requests"}}', "currency")
    part = f"{_sum(_OWNED, by)} / on () group_left () {_sum(_OWNED)}"
    return f"{part} * on () group_left (currency) {bill}"


_HEADLINE = Row(
    "Headline",
    [
        Panel(
            "Saved",
            "Share of the joules that always asking the most accurate able model was predicted to "
            "need and the chosen ones were not; routed requests alone.",
            SHARE,
            [Query(f"1 - {_sum(_of('chosen'))} / {_sum(_of('most-accurate'))}")],
            "number",
            3,
            least=None,
        ),
        Panel(
            "Saved",
            "The same in energy.",
            _KWH,
            [Query(f"({_saved('')}) / {_JOULES_PER_KWH}")],
            "number",
            3,
            least=None,
        ),
        Panel(
            "Saved, measured",
            "Joules per generated token of a switchback's treatment, less than its baseline's, "
            "idle included; empty where none ran. The interval: joulegate savings.",
            SHARE,
            [Query(f"1 - ({_arm('treatment')}) / ({_arm('baseline')})")],
            "number",
            3,
            least=None,
        ),
        Panel(
            "Spent",
            "Energy of the models' devices, idle and other included.",
            _KWH,
            [Query(f"{_sum(_ENERGY)} / {_JOULES_PER_KWH}")],
            "number",
            3,
        ),
        Panel(
            "Idle",
            "Share of that which no request used.",
            SHARE,
            [Query(f"1 - {_sum(_OWNED)} / {_sum(_ENERGY)}")],
            "number",
            3,
        ),
        Panel(
            "CO2e",
            "Of requests' joules, by the configured grid intensity; empty without `carbon`.",
            GRAMS,
            [Query(_sum(_CO2E))],
            "number",
            3,
        ),
        Panel(
            "CO2e per 1,000 tokens",
            "Operational emissions per 1,000 generated tokens: the software carbon intensity (SCI) "
            "without embodied carbon.",
            GRAMS,
            [Query(f"1000 * {_sum(_CO2E)} / {_sum(_TOKENS)}")],
            "number",
            3,
            decimals=3,
        ),
        Panel(
            "Bill",
            "Of the facility's joules, idle included, in the currency of `boundary`.",
            _MONEY,
            [Query(_sum(_COST, "currency"), "{{currency}}")],
            "number",
            3,
            decimals=2,
        ),
    ],
)


def _owners(title: str, text: str, unit: str, make: Callable[[str], str]) -> list[Panel]:
    """Return a panel for each of tenant, preset and model, whose expression `make` gives."""
    return [
        Panel(
            f"{title} by {by}",
            text,
            unit,
            [Query(make(by), f"{{{{{by}}}}}")],
            "stack",
        )
        for by in ("tenant", "preset", "model")
    ]


_SPENT = Row(
    "Spent, by day",
    [
        *_owners(
            "Joules",
            "Of requests, failed attempts included and idle left out, over the day before each "
            "point; tenant none is requests without a key.",
            JOULES,
            lambda by: f"sum by ({by}) ({_DAY_OWNED})",
        ),
        Panel(
            "Joules with idle, by model",
            "All joules of a model's devices over the day before each point.",
            JOULES,
            [Query(f"sum by (model, method) ({_DAY})", "{{model}}, {{method}}")],
            "stack",
            12,
        ),
        Panel(
            "Saved against the most accurate, by tenant",
            "Predicted, of routed requests, over the day before each point.",
            JOULES,
            [
                Query(
                    f"sum by (tenant) ({_of('most-accurate', _DAY_BASELINE)}) - "
                    f"sum by (tenant) ({_of('chosen', _DAY_BASELINE)})",
                    "{{tenant}}",
                )
            ],
            "stack",
            12,
            least=None,
        ),
    ],
)

_TOTALS = Row(
    "Over the dashboard's time",
    [
        *_owners(
            "Energy",
            "Of requests, idle left out.",
            _KWH,
            lambda by: f"{_sum(_OWNED, by)} / {_JOULES_PER_KWH}",
        ),
        *_owners("CO2e", "Of requests' joules.", GRAMS, lambda by: _sum(_CO2E, by)),
        *_owners(
            "Price",
            "The requests' part of the bill, divided by joules; needs `boundary`.",
            _MONEY,
            _price,
        ),
        *(
            Panel(
                f"Saved by {by}",
                "Against always the most accurate, predicted, of routed requests.",
                JOULES,
                [Query(_saved(by), f"{{{{{by}}}}}")],
                "stack",
                12,
                least=None,
            )
            for by in ("tenant", "preset")
        ),
    ],
)

PAGE = Page(
    "finops",
    "FinOps",
    "Who spent what and what it saved: joules, kWh, money, CO2e by tenant, preset and model. Needs "
    "the recording rules in helm/rules; money needs `boundary`, CO2e `carbon`, tenants API keys.",
    (_HEADLINE, _SPENT, _TOTALS),
    since="now-7d",
)
