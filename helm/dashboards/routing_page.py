"""The page of decisions: who is chosen and why not others, and whether predictions come true."""

# ruff: noqa: INP001 - a script's helper

from parts import (
    COUNT,
    HERE,
    JOULES,
    OF,
    RATE,
    REQUESTS,
    SECONDS,
    SHARE,
    SPAN,
    Page,
    Panel,
    Query,
    Row,
    or_zero,
    quantiles,
    shares,
)

_DECISIONS = f"namespace_model_policy_preset:joulegate_decisions:rate5m{{{OF}}}"
_DECIDING = f"namespace_le:joulegate_decision_duration_seconds_bucket:rate5m{{{HERE}}}"
_EXCLUDED = f"rate(joulegate_exclusions_total{{{OF}}}[{RATE}])"
_RETRIED = f"rate(joulegate_retries_total{{{OF}}}[{RATE}])"
_FLOORED = f"rate(joulegate_predictions_floored_total{{{OF}}}[{RATE}])"
_TTFT = "time_to_first_token_seconds_bucket:rate5m"


def _means(quantity: str) -> list[Query]:
    """Return mean predicted and mean observed, of one quantity by model."""
    of = f'{{{OF}, profile="live"}}'
    counted = f'joulegate_prediction_requests_total{{{OF}, quantity="{quantity}", profile="live"}}'
    count = f"(sum by (model) (rate({counted}[{RATE}])) > 0)"
    unit = quantity.removeprefix("output_")
    return [
        Query(
            f"sum by (model) (rate(joulegate_prediction_{what}_{unit}_total{of}[{RATE}]))"
            f" / {count}",
            "{{model}}",
            dotted=what == "predicted",
        )
        for what in ("observed", "predicted")
    ]


_CHOSEN = Row(
    "Decisions",
    [
        Panel(
            "Decisions by model chosen",
            "Decisions per second by the model that came out best.",
            REQUESTS,
            [Query(f"sum by (model) ({_DECISIONS})", "{{model}}")],
            "stack",
        ),
        Panel(
            "Decisions by preset",
            "Decisions per second by the preset asked for; auto without one is default.",
            REQUESTS,
            [Query(f"sum by (preset) ({_DECISIONS})", "{{preset}}")],
            "stack",
        ),
        Panel(
            "Decisions by policy",
            "Decisions per second by policy; none is requests that named their model.",
            REQUESTS,
            [Query(f"sum by (policy) ({_DECISIONS})", "{{policy}}")],
            "stack",
        ),
        Panel(
            "Share of models within a preset, whole range",
            "What each preset's decisions came to, over the dashboard's time; each row adds up to "
            "100%. A preset that only ever picks one model could be that model's name; none is "
            "requests that named theirs.",
            SHARE,
            [
                Query(
                    shares(
                        f"increase(joulegate_decisions_total{{{OF}}}[{SPAN}])", "model", "preset"
                    )
                )
            ],
            "matrix",
            12,
            by=("preset", "model"),
            decimals=0,
        ),
        Panel(
            "Time to decide",
            "Counting the prompt's tokens and ranking the models; a millisecond is much.",
            SECONDS,
            quantiles(_DECIDING, "", 0.5, 0.95, 0.99),
            width=12,
            steps=((None, "green"), (0.001, "red")),
        ),
        Panel(
            "Exclusions by reason",
            "Candidates left out per second: capability, context, down, bound (the caller's "
            "limits).",
            REQUESTS,
            [Query(f"sum by (reason) ({_EXCLUDED})", "{{reason}}")],
            "stack",
            12,
        ),
        Panel(
            "Exclusions by model",
            "The same by the model that was left out.",
            REQUESTS,
            [Query(f"sum by (model) ({_EXCLUDED})", "{{model}}")],
            "stack",
            12,
        ),
    ],
)

_PREDICTED = Row(
    "Predicted against observed, means of the same requests",
    [
        Panel(
            "Seconds",
            "Mean time of an answer as it came; dotted: as predicted.",
            SECONDS,
            _means("seconds"),
        ),
        Panel(
            "Joules",
            "Mean energy of a request as measured; dotted: as predicted. Estimates are left out.",
            JOULES,
            _means("joules"),
        ),
        Panel(
            "Tokens of an answer",
            "Mean length of answers as generated; dotted: as predicted.",
            COUNT,
            _means("output_tokens"),
        ),
        Panel(
            "First token, p50",
            "Median time to the first token of streamed answers; dotted: as predicted.",
            SECONDS,
            [
                query._replace(legend="{{model}}", dotted=name != "")
                for name in ("", "predicted_")
                for query in quantiles(
                    f"namespace_model_le:joulegate_{name}{_TTFT}{{{OF}}}", "model", 0.5
                )
            ],
        ),
        Panel(
            "Retries",
            "Attempts made because an earlier one failed, by that failure.",
            REQUESTS,
            [Query(f"sum by (reason) ({_RETRIED})", "{{reason}}")],
            "stack",
        ),
        Panel(
            "Predictions floored",
            "Predictions at or below 0, per second: the profile is outside what it knows.",
            REQUESTS,
            [
                Query(
                    or_zero(f"sum by (model) ({_FLOORED})", f"sum by (model) ({_DECISIONS})"),
                    "{{model}}",
                )
            ],
            "stack",
        ),
    ],
)

PAGE = Page(
    "routing",
    "Routing",
    "What is chosen, what is left out, and what was predicted. Needs the rules in helm/rules.",
    (_CHOSEN, _PREDICTED),
)
