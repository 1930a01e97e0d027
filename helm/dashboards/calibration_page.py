"""The page of the profile: its coefficients, whether they still hold, and what might replace it."""

# ruff: noqa: INP001 - a script's helper

from parts import (
    COUNT,
    HERE,
    OF,
    RATE,
    REQUESTS,
    SHARE,
    SPAN,
    Page,
    Panel,
    Query,
    Row,
    Step,
)

_TERMS = {
    "b0": ("b0", "{unit} of an empty request"),
    "b1": ("b1, per prompt token", "{unit} per token of the prompt"),
    "b2": ("b2, per generated token", "{unit} per generated token"),
    "b3": (
        "b3, prompt x generated",
        "{unit} per product of both, or per token of context read where the form is context",
    ),
    "b4": ("b4, load", "{unit} per unit of load (joules: less where a batch is shared)"),
}
_QUANTITIES = ("seconds", "joules", "output_tokens")
_BOUNDS: tuple[Step, ...] = ((None, "green"), (1.25, "red"))
_WIDTHS = (5, 5, 5, 5, 4)
_BIAS = "namespace_model_quantity_profile:joulegate_prediction_bias:ratio_rate1h"
_ERROR = "namespace_model_quantity_profile:joulegate_prediction_error:ratio_rate1h"


def _coefficient(quantity: str, term: str, width: int) -> Panel:
    """Return a panel of one coefficient and its interval; workers and replicas show the same."""
    title, meaning = _TERMS[term]
    of = f'{{{OF}, quantity="{quantity}", term="{term}"}}'
    value = f"max by (model, deployment) (joulegate_profile_coefficient{of})"
    error = f"max by (model, deployment) (joulegate_profile_coefficient_stderr{of})"
    return Panel(
        title,
        f"{meaning.format(unit=quantity.capitalize())}, of the profile in force. Dotted: its 95% "
        "interval, where the profile knows it.",
        COUNT,
        [
            Query(value, "{{deployment}}"),
            Query(f"{value} - 1.96 * {error}", "{{deployment}}", dotted=True),
            Query(f"{value} + 1.96 * {error}", "{{deployment}}", dotted=True),
        ],
        width=width,
        least=None,
    )


def _coefficients(quantity: str) -> Row:
    return Row(
        f"Coefficients of {quantity}",
        [_coefficient(quantity, term, width) for term, width in zip(_TERMS, _WIDTHS, strict=True)],
    )


def _bias(quantity: str) -> Panel:
    of = f'{{{OF}, quantity="{quantity}", profile="live"}}'
    return Panel(
        f"Bias of {quantity.replace('_', ' ')}",
        "Observed over predicted, of the sums of the last hour; 1 is right, above 1 is more than "
        "predicted. Beyond 1.25 or below 0.8 for long, the profile is stale.",
        COUNT,
        [Query(f"sum by (model) ({_BIAS}{of})", "{{model}}")],
        steps=_BOUNDS,
        decimals=2,
    )


def _drift(quantity: str, threshold: float) -> Panel:
    of = f'{{{OF}, quantity="{quantity}", profile="live"}}'
    return Panel(
        f"Drift of {quantity.replace('_', ' ')}",
        f"Page-Hinkley score of ln(observed/predicted); at {threshold:g} there is an alarm and the "
        "score begins anew.",
        COUNT,
        [Query(f"max by (model) (joulegate_prediction_drift_score{of})", "{{model}}")],
        steps=((None, "green"), (threshold, "red")),
    )


def _shadow(quantity: str) -> Panel:
    of = f'{{{OF}, quantity="{quantity}"}}'
    return Panel(
        f"Error in {quantity}: live and shadow",
        "Sum of absolute errors over the sum observed, of the last hour: the lower profile is the "
        "better one. Shadow is there while `shadow` names a profile.",
        SHARE,
        [Query(f"sum by (model, profile) ({_ERROR}{of})", "{{model}} {{profile}}")],
        width=12,
    )


def _samples(quantity: str) -> str:
    of = f'{OF}, quantity="{quantity}", profile="live"'
    return f"sum by (model) (rate(joulegate_prediction_requests_total{{{of}}}[{RATE}]))"


PAGE = Page(
    "calibration",
    "Calibration",
    "The profile in force, how well it predicts, and its shadow. Needs the rules in helm/rules.",
    (
        Row(
            "Do predictions hold",
            [
                *(_bias(quantity) for quantity in _QUANTITIES),
                *(
                    _drift(quantity, threshold)
                    for quantity, threshold in zip(_QUANTITIES, (25, 25, 60), strict=True)
                ),
                Panel(
                    "Drift alarms, whole range",
                    "Alarms over the dashboard's time, of any of the three quantities.",
                    COUNT,
                    [
                        Query(
                            "sum by (model) (increase("
                            f'joulegate_prediction_drift_alarms_total{{{OF}, profile="live"}}'
                            f"[{SPAN}]))",
                            "{{model}}",
                        )
                    ],
                    "number",
                    steps=((None, "green"), (1, "red")),
                    decimals=0,
                ),
                Panel(
                    "Samples",
                    "Requests compared per second; dotted: those whose joules were measured.",
                    REQUESTS,
                    [
                        Query(_samples("seconds"), "{{model}}"),
                        Query(_samples("joules"), "{{model}}", dotted=True),
                    ],
                ),
                Panel(
                    "Samples for a refit, whole range",
                    "Requests in the sums that recalibration reads, over the dashboard's time.",
                    "locale",
                    [
                        Query(
                            "sum by (deployment, quantity) (increase("
                            f'joulegate_ols_sum_total{{{OF}, basis="rows", term="rows"}}[{SPAN}]))',
                        )
                    ],
                    "matrix",
                    by=("deployment", "quantity"),
                    decimals=0,
                ),
            ],
        ),
        Row(
            "Profile versions",
            [
                Panel(
                    "In force",
                    "Which version predicts and decides; more than one at a time is a rollout.",
                    COUNT,
                    [
                        Query(
                            f"max by (model, version) (joulegate_profile_info{{{OF}}})",
                            "{{model}} {{version}}",
                        )
                    ],
                    "states",
                    12,
                    steps=((None, "red"), (1, "green")),
                ),
                Panel(
                    "Predicted by",
                    "Which key of the profile each deployment is predicted by, and refitted as.",
                    COUNT,
                    [
                        Query(
                            f"max by (deployment, profile) (joulegate_deployment_info{{{OF}}})",
                            "{{deployment}} by {{profile}}",
                        )
                    ],
                    "states",
                    12,
                    steps=((None, "red"), (1, "green")),
                ),
                Panel(
                    "In shadow",
                    "Which version predicts beside it and decides nothing.",
                    COUNT,
                    [
                        Query(
                            f"max by (model, version) (joulegate_shadow_profile_info{{{OF}}})",
                            "{{model}} {{version}}",
                        )
                    ],
                    "states",
                    12,
                    steps=((None, "red"), (1, "green")),
                ),
                Panel(
                    "Profile changes, whole range",
                    "Files seen and adopted, or refused because they are not sane, over the "
                    "dashboard's time.",
                    COUNT,
                    [
                        Query(
                            "sum by (result) (increase("
                            f"joulegate_profile_reloads_total{{{HERE}}}[{SPAN}]))",
                            "{{result}}",
                        )
                    ],
                    "number",
                    12,
                    decimals=0,
                ),
            ],
        ),
        Row("Shadow profile", [_shadow("seconds"), _shadow("joules")]),
        *(_coefficients(quantity) for quantity in ("seconds", "joules")),
    ),
)
