"""The page that is looked at first: is it well, how fast is it, what does it use and save."""

# ruff: noqa: INP001 - a script's helper

from boundary_row import BOUNDARY
from parts import (
    GRAMS,
    HERE,
    JOULES,
    OF,
    PER_SECOND,
    RATE,
    REQUESTS,
    SECONDS,
    SHARE,
    SPAN,
    WATTS,
    Page,
    Panel,
    Query,
    Row,
    or_zero,
    quantiles,
    shares,
)

_REQUESTS = f"namespace_model_code:joulegate_requests:rate5m{{{OF}}}"
_FAILED = f'{_REQUESTS[:-1]}, code=~"5.."}}'
_ALL = f"sum({_REQUESTS})"
_DURATION = f"namespace_model_le:joulegate_request_duration_seconds_bucket:rate5m{{{OF}}}"
_TTFT = f"namespace_model_le:joulegate_time_to_first_token_seconds_bucket:rate5m{{{OF}}}"
_TPOT = f"namespace_model_le:joulegate_time_per_output_token_seconds_bucket:rate5m{{{OF}}}"
_ENERGY = "namespace_model_method:joulegate_energy_joules:rate5m"
_SPENT = f"namespace_model:joulegate_request_energy_joules_sum:rate5m{{{OF}}}"
_COUNTED = f"namespace_model:joulegate_request_energy_joules_count:rate5m{{{OF}}}"
_TOKENS = f"namespace_model_type:joulegate_tokens:rate5m{{{OF}}}"
_SERVED = 'type=~"prompt|completion"'
_ATTRIBUTED, _IDLE, _OTHER = 'method!~"idle|other"', 'method="idle"', 'method="other"'
_BASELINE = f"joulegate_baseline_energy_joules_total{{{HERE}}}"
_CHOSEN = f'{_BASELINE[:-1]}, baseline="chosen"}}'
_OTHERS = f'{_BASELINE[:-1]}, baseline!="chosen"}}'


def _tokens(by: str = "") -> str:
    return f"sum{by} (namespace_model_type:joulegate_tokens:rate5m{{{OF}, {_SERVED}}})"


_NOW = Row(
    "Now; Saved and CO2e over the dashboard's time",
    [
        Panel(
            "Requests",
            "Requests per second over 5 minutes, refused and abandoned ones included.",
            REQUESTS,
            [Query(f"sum({_REQUESTS})")],
            "number",
            3,
        ),
        Panel(
            "Errors",
            "Share of requests answered with a 5xx or broken off, over 5 minutes.",
            SHARE,
            [Query(f"({or_zero(f'sum({_FAILED})', _ALL)}) / {_ALL}")],
            "number",
            3,
            ((None, "green"), (0.01, "orange"), (0.05, "red")),
            decimals=2,
        ),
        Panel(
            "Answer, p95",
            "One answer in twenty takes longer, from the request's head to the end.",
            SECONDS,
            [query._replace(legend="") for query in quantiles(_DURATION, "", 0.95)],
            "number",
            3,
        ),
        Panel(
            "First token, p95",
            "One streamed answer in twenty begins later.",
            SECONDS,
            [query._replace(legend="") for query in quantiles(_TTFT, "", 0.95)],
            "number",
            3,
            ((None, "green"), (5, "orange"), (10, "red")),
        ),
        Panel(
            "Per request, idle out",
            "Mean joules of a request, measured or estimated, over 5 minutes; idle left out.",
            JOULES,
            [Query(f"sum({_SPENT}) / sum({_COUNTED})")],
            "number",
            3,
            decimals=0,
        ),
        Panel(
            "Power, idle in",
            "Watts of the models' devices: requests, idle and other together.",
            WATTS,
            [Query(f"sum({_ENERGY}{{{OF}}})")],
            "number",
            3,
            decimals=0,
        ),
        Panel(
            "Saved, whole range",
            "Share of the joules that always asking the most accurate able model was predicted to "
            "need and the chosen ones were not; of routed requests, idle left out, at unchanged "
            "load. To know, run an experiment (joulegate savings).",
            SHARE,
            [
                Query(
                    f"1 - sum(increase({_CHOSEN}[{SPAN}])) / "
                    f'sum(increase({_BASELINE[:-1]}, baseline="most-accurate"}}[{SPAN}]))'
                )
            ],
            "number",
            3,
            least=None,
        ),
        Panel(
            "CO2e, whole range",
            "Grams of CO2e of requests' joules, idle left out, over the dashboard's time; 0 unless "
            "`carbon` is configured.",
            GRAMS,
            [Query(f"sum(increase(joulegate_co2e_grams_total{{{OF}}}[{SPAN}]))")],
            "number",
            3,
        ),
    ],
)

_TRAFFIC = Row(
    "Traffic",
    [
        Panel(
            "Requests by code",
            "Status codes; 499 is a client that left. An interrupted stream counts as its error.",
            REQUESTS,
            [Query(f"sum by (code) ({_REQUESTS})", "{{code}}")],
            "stack",
        ),
        Panel(
            "Errors by model",
            "Share of a model's requests that got a 5xx; none is requests that reached no model.",
            SHARE,
            [
                Query(
                    "sum by (model) (namespace_model:joulegate_request_errors:ratio_rate5m"
                    f"{{{OF}}})",
                    "{{model}}",
                )
            ],
            steps=((None, "green"), (0.05, "red")),
        ),
        Panel(
            "Share of requests by model",
            "Who answers: each model's share of the requests that reached one.",
            SHARE,
            [Query(shares(f'{_REQUESTS[:-1]}, model!="none"}}', "model"), "{{model}}")],
            "share",
        ),
        Panel(
            "Answer time",
            "From the request's head to the end of the answer.",
            SECONDS,
            quantiles(_DURATION, "", 0.5, 0.95, 0.99),
        ),
        Panel(
            "Time to first token",
            "Of streamed answers, from the request's head to the first content.",
            SECONDS,
            quantiles(_TTFT, "", 0.5, 0.95, 0.99),
            steps=((None, "green"), (10, "red")),
        ),
        Panel(
            "Time per output token",
            "Mean of each streamed answer, p95 by model.",
            SECONDS,
            quantiles(_TPOT, "model", 0.95),
        ),
        Panel(
            "Answer time by model, p95",
            "One answer in twenty takes longer.",
            SECONDS,
            quantiles(_DURATION, "model", 0.95),
        ),
        Panel(
            "Tokens",
            "Tokens per second: of prompts, found in a prefix cache (part of those), generated.",
            PER_SECOND,
            [Query(f"sum by (type) ({_TOKENS})", "{{type}}")],
        ),
        Panel(
            "Clients that left",
            "Requests whose client was gone before the answer was whole.",
            PER_SECOND,
            [Query(f"sum(rate(joulegate_client_disconnects_total{{{HERE}}}[{RATE}]))", "left")],
        ),
    ],
)

_JOULES = Row(
    "Energy",
    [
        Panel(
            "Joules per request, idle out",
            "Mean of 5 minutes by model, measured where there is a meter; idle left out.",
            JOULES,
            [Query(f"sum by (model) ({_SPENT}) / (sum by (model) ({_COUNTED}) > 0)", "{{model}}")],
        ),
        Panel(
            "Joules per 1,000 tokens, idle out",
            "Joules of requests, idle left out, over their tokens, prompt and generated together.",
            JOULES,
            [
                Query(
                    f"1000 * sum by (model) ({_SPENT}) / ({_tokens(' by (model)')} > 0)",
                    "{{model}}",
                )
            ],
        ),
        Panel(
            "Joules by measurement method, idle out",
            "Exclusive and apportioned are measured, coarse is from a slow counter, estimated is "
            "predicted because no meter measured it. Idle is left out.",
            SHARE,
            [Query(shares(f"{_ENERGY}{{{OF}, {_ATTRIBUTED}}}", "method"), "{{method}}")],
            "share",
        ),
        Panel(
            "Watts of requests, idle and other",
            "What requests used, what devices used while idle, and what nobody answers for.",
            WATTS,
            [
                Query(f"sum({_ENERGY}{{{OF}, {_ATTRIBUTED}}})", "requests"),
                Query(f"sum({_ENERGY}{{{OF}, {_IDLE}}})", "idle"),
                Query(
                    or_zero(f"sum({_ENERGY}{{{OF}, {_OTHER}}})", f"sum({_ENERGY}{{{OF}}})"), "other"
                ),
            ],
            "stack",
        ),
        Panel(
            "Watts by model, idle out",
            "Power that requests used.",
            WATTS,
            [Query(f"sum by (model) ({_ENERGY}{{{OF}, {_ATTRIBUTED}}})", "{{model}}")],
            "stack",
        ),
        Panel(
            "Idle watts by model",
            "Power used while no request ran: the price of keeping a model ready.",
            WATTS,
            [Query(f"sum by (model) ({_ENERGY}{{{OF}, {_IDLE}}})", "{{model}}")],
            "stack",
        ),
        Panel(
            "Savings, predicted",
            "Watts that always asking the hungriest, or the most accurate, able model would cost "
            "beyond those chosen, idle left out. Below 0: it would cost less. Of all models.",
            WATTS,
            [
                Query(
                    f"sum by (baseline) (rate({_OTHERS}[{RATE}])) - on() group_left() "
                    f"sum(rate({_CHOSEN}[{RATE}]))",
                    "against {{baseline}}",
                )
            ],
            least=None,
        ),
        Panel(
            "Predicted spending, whole range",
            "Joules of routed requests, idle left out: of the models chosen, and of the baselines.",
            JOULES,
            [Query(f"sum by (baseline) (increase({_BASELINE}[{SPAN}]))", "{{baseline}}")],
            "number",
        ),
        Panel(
            "CO2e per hour, idle out",
            "Grams of CO2e an hour of requests' joules, idle left out, at the configured grid "
            "intensity; 0 without `carbon`.",
            GRAMS,
            [
                Query(
                    f"3600 * sum by (model) (rate(joulegate_co2e_grams_total{{{OF}}}[{RATE}]))",
                    "{{model}}",
                )
            ],
            "stack",
        ),
    ],
)

PAGE = Page(
    "overview",
    "Overview",
    "Requests, times, joules and savings. Needs the recording rules in helm/rules.",
    (_NOW, _TRAFFIC, _JOULES, BOUNDARY),
)
