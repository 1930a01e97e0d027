"""What requests cost beyond their accelerators: the row of the overview's page for `boundary`."""

# ruff: noqa: INP001 - a script's helper

from parts import GRAMS, JOULES, OF, RATE, SPAN, WATTS, Panel, Query, Row

_SERVED = f'{OF}, kind="requests"'
_WITH_IDLE = f'{OF}, kind=~"requests|idle"'
_ANSWERED = f'sum(increase(joulegate_requests_total{{{OF}, code="200"}}[{SPAN}]))'


def _rate_by(series: str, by: str) -> str:
    return f"sum by ({by}) (rate({series}{{{OF}}}[{RATE}]))"


def _per_answer(series: str, which: str) -> str:
    return f"sum(increase({series}{{{which}}}[{SPAN}])) / {_ANSWERED}"


BOUNDARY = Row(
    "Beyond the accelerators: hosts, idle, PUE, money (needs `boundary`)",
    [
        Panel(
            "Facility watts by kind",
            "Accelerators and servers times the PUE: of requests, idle, and what nobody answers "
            "for.",
            WATTS,
            [Query(_rate_by("joulegate_facility_energy_joules_total", "kind"), "{{kind}}")],
            "stack",
        ),
        Panel(
            "Server watts by source",
            "What servers draw without accelerators, idle included: read from their own counters "
            "(rapl), or configured.",
            WATTS,
            [
                Query(
                    _rate_by("joulegate_host_energy_joules_total", "kind, source"),
                    "{{kind}}, {{source}}",
                )
            ],
            "stack",
        ),
        Panel(
            "Facility joules per answer, whole range",
            "Of the dashboard's time, without what was idle and with it.",
            JOULES,
            [
                Query(
                    _per_answer("joulegate_facility_energy_joules_total", _SERVED), "without idle"
                ),
                Query(
                    _per_answer("joulegate_facility_energy_joules_total", _WITH_IDLE), "with idle"
                ),
            ],
            "number",
        ),
        Panel(
            "CO2e per answer, whole range",
            "Grams of the dashboard's time, without what was idle and with it; needs `carbon` too.",
            GRAMS,
            [
                Query(_per_answer("joulegate_facility_co2e_grams_total", _SERVED), "without idle"),
                Query(_per_answer("joulegate_facility_co2e_grams_total", _WITH_IDLE), "with idle"),
            ],
            "number",
            12,
        ),
        Panel(
            "Price of 1,000 answers, whole range",
            "Of the dashboard's time, without what was idle and with it; in the currency of "
            "`boundary`.",
            "none",
            [
                Query("1000 * " + _per_answer("joulegate_cost_total", _SERVED), "without idle"),
                Query("1000 * " + _per_answer("joulegate_cost_total", _WITH_IDLE), "with idle"),
            ],
            "number",
            12,
            decimals=4,
        ),
    ],
)
