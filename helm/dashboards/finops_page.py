"""The page for whoever pays: joules, money and CO2e, spent and saved, by tenant, preset and model.

Rules of this file: savings are of routed requests alone, predicted both as chosen and as the rule
they are held against, and never a difference with metered joules; what was measured by a switchback
stands beside them, by name.
"""

# ruff: noqa: INP001 - a script's helper

from collections.abc import Callable

from parts import GRAMS, HERE, JOULES, OF, SHARE, SPAN, Page, Panel, Query, Row

_KWH, _MONEY, _COUNT = "kwatth", "none", "locale"
_JOULES_PER_KWH = "3600000"
_ENERGY = f"joulegate_energy_joules_total{{{OF}}}"
_OWNED = f'{_ENERGY[:-1]}, method!~"idle|other"}}'
_IDLE_AND_OTHER = f'{_ENERGY[:-1]}, method=~"idle|other"}}'
_REQUESTS = f"joulegate_requests_total{{{OF}}}"
_DECISIONS = f"joulegate_decisions_total{{{OF}}}"
_BASELINE = f"joulegate_baseline_energy_joules_total{{{HERE}}}"
_DAY = f"namespace_model_method_tenant_preset:joulegate_energy_joules:increase1d{{{OF}}}"
_DAY_OWNED = f'{_DAY[:-1]}, method!~"idle|other"}}'
_DAY_OTHERS = f'{_DAY[:-1]}, method=~"idle|other"}}'
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


def _part_of(whole: str, part: str, kept: str = "") -> str:
    """Return of `whole`, that of all requests' joules, what belongs to a part of these."""
    joules = f"({part}) / on () group_left () {_sum(_OWNED)}"
    return f"{joules} * on () group_left ({kept}) {whole}"


_BILL = _sum(f'{_COST[:-1]}, kind="requests"}}', "currency")


_HEADLINE = Row(
    "Over the dashboard's time: all of it",
    [
        Panel(
            "Saved, predicted",
            "Share of the joules that always asking the most accurate able model was predicted to "
            "need and the chosen ones were not; routed requests alone, idle left out.",
            SHARE,
            [Query(f"1 - {_sum(_of('chosen'))} / {_sum(_of('most-accurate'))}")],
            "number",
            3,
            least=None,
        ),
        Panel(
            "Energy saved, predicted",
            "The same in energy, idle left out.",
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
            "Spent, idle in",
            "Energy of the models' devices, idle and other included.",
            _KWH,
            [Query(f"{_sum(_ENERGY)} / {_JOULES_PER_KWH}")],
            "number",
            3,
        ),
        Panel(
            "Idle and other",
            "Share of that which no request used.",
            SHARE,
            [Query(f"1 - {_sum(_OWNED)} / {_sum(_ENERGY)}")],
            "number",
            3,
        ),
        Panel(
            "CO2e, idle out",
            "Of requests' joules, by the configured grid intensity; empty without `carbon`.",
            GRAMS,
            [Query(_sum(_CO2E))],
            "number",
            3,
        ),
        Panel(
            "CO2e per 1,000 tokens",
            "Operational emissions per 1,000 generated tokens: the software carbon intensity (SCI) "
            "without embodied carbon; idle left out.",
            GRAMS,
            [Query(f"1000 * {_sum(_CO2E)} / {_sum(_TOKENS)}")],
            "number",
            3,
            decimals=3,
        ),
        Panel(
            "Bill, idle in",
            "Of the facility's joules, idle included, in the currency of `boundary`.",
            _MONEY,
            [Query(_sum(_COST, "currency"), "{{currency}}")],
            "number",
            3,
            decimals=2,
        ),
    ],
)


def _spent(by: str) -> list[Query]:
    """Return the columns of what a part of the requests spent, idle left out."""
    return [
        Query(f"{_sum(_OWNED, by)} / {_JOULES_PER_KWH}", "Energy, idle out", unit=_KWH),
        Query(
            _part_of(_BILL, _sum(_OWNED, by), "currency"),
            "Price, idle out",
            unit=_MONEY,
            decimals=3,
        ),
        Query(_sum(_CO2E, by), "CO2e, idle out", unit=GRAMS),
    ]


def _savings(by: str) -> list[Query]:
    """Return the columns of what routing a part of the requests was predicted to save."""
    share = f"1 - {_sum(_of('chosen'), by)} / {_sum(_of('most-accurate'), by)}"
    return [
        Query(share, "Saved", unit=SHARE),
        Query(f"({_saved(by)}) / {_JOULES_PER_KWH}", "Energy saved", unit=_KWH),
        Query(_part_of(_BILL, _saved(by), "currency"), "Money saved", unit=_MONEY, decimals=3),
        Query(_part_of(_sum(_CO2E), _saved(by)), "CO2e saved", unit=GRAMS),
    ]


_TABLE_TEXT = (
    "Spent is of requests, measured or estimated, with failed attempts and without idle. Saved "
    "is predicted, of routed requests alone, against always asking the most accurate able model; "
    "its money and CO2e are at what a request's joule cost on average."
)

_TOTALS = Row(
    "Over the dashboard's time: who spent what, and what routing saved",
    [
        Panel(
            "By tenant",
            f"{_TABLE_TEXT} Tenant none is requests without a key.",
            _COUNT,
            [
                Query(_sum(_REQUESTS, "tenant"), "Requests"),
                *_spent("tenant"),
                *_savings("tenant"),
            ],
            "table",
            24,
            decimals=0,
            by=("tenant",),
        ),
        Panel(
            "By preset",
            f"{_TABLE_TEXT} Preset none is requests that named their model, which nothing saves.",
            _COUNT,
            [
                Query(_sum(_DECISIONS, "preset"), "Decisions"),
                *_spent("preset"),
                *_savings("preset"),
            ],
            "table",
            24,
            decimals=0,
            by=("preset",),
        ),
        Panel(
            "By model",
            "Of requests; idle and other, which no request used, are in a column of their own.",
            _COUNT,
            [
                Query(_sum(_REQUESTS, "model"), "Requests"),
                Query(_sum(_TOKENS, "model"), "Tokens generated"),
                *_spent("model"),
                Query(
                    f"{_sum(_IDLE_AND_OTHER, 'model')} / {_JOULES_PER_KWH}",
                    "Idle and other",
                    unit=_KWH,
                ),
                Query(
                    f"1000 * {_sum(_OWNED, 'model')} / {_sum(_TOKENS, 'model')}",
                    "Per 1,000 tokens, idle out",
                    unit=JOULES,
                ),
            ],
            "table",
            24,
            decimals=0,
            by=("model",),
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


_DAYS = Row(
    "By day: each point is the day before it",
    [
        *_owners(
            "Joules, idle out",
            "Of requests, failed attempts included and idle left out, over the day before each "
            "point; tenant none is requests without a key.",
            JOULES,
            lambda by: f"sum by ({by}) ({_DAY_OWNED})",
        ),
        Panel(
            "Joules by model, idle in",
            "All joules of a model's devices over the day before each point.",
            JOULES,
            [
                Query(f"sum by (model) ({_DAY_OWNED})", "{{model}}, requests"),
                Query(f"sum by (model) ({_DAY_OTHERS})", "{{model}}, idle and other"),
            ],
            "stack",
            12,
        ),
        Panel(
            "Joules saved, predicted, by tenant",
            "Against always the most accurate, of routed requests without idle, over the day "
            "before each point.",
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

PAGE = Page(
    "finops",
    "FinOps",
    "Who spent what and what it saved: joules, kWh, money, CO2e by tenant, preset and model. Needs "
    "the recording rules in helm/rules; money needs `boundary`, CO2e `carbon`, tenants API keys.",
    (_HEADLINE, _TOTALS, _DAYS),
    since="now-7d",
)
