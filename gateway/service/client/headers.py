"""Every header of the gateway's own, defined once; the reference page is generated from here."""

from typing import Final

REQUEST_ID: Final = "x-request-id"
WEIGHT_ACCURACY: Final = "x-joulegate-weight-accuracy"
WEIGHT_ENERGY: Final = "x-joulegate-weight-energy"
WEIGHT_TIME: Final = "x-joulegate-weight-time"
POLICY: Final = "x-joulegate-policy"
MAX_LATENCY_MS: Final = "x-joulegate-max-latency-ms"
MAX_ENERGY_JOULES: Final = "x-joulegate-max-energy-joules"
MIN_ACCURACY: Final = "x-joulegate-min-accuracy"
BOUND_QUANTILE: Final = "x-joulegate-bound-quantile"
ACCURACY_WITHIN: Final = "x-joulegate-accuracy-within"
INFEASIBLE: Final = "x-joulegate-infeasible"
EXPLAIN: Final = "x-joulegate-explain"
IMPACT: Final = "x-joulegate-impact"
AFFINITY: Final = "x-joulegate-affinity"
LOAD_FORMAT: Final = "endpoint-load-metrics-format"
READ_TIMEOUT: Final = "x-stainless-read-timeout"

REQUEST: Final = {
    WEIGHT_ACCURACY: "how much accuracy counts, a non-negative decimal number",
    WEIGHT_ENERGY: "how much energy counts",
    WEIGHT_TIME: "how much time counts; of the three those given are used, scaled to sum 1",
    POLICY: "`relative` (the default), `fair-ols` or `hybrid`",
    MAX_LATENCY_MS: "hard bound on the milliseconds, held by the 90% quantile of answer lengths",
    MAX_ENERGY_JOULES: "hard bound on the joules, held likewise",
    MIN_ACCURACY: "hard bound on the accuracy (the lower end of a predicted one), 0 to 1",
    ACCURACY_WITHIN: "how far below the most accurate candidate another may lie, 0 to 1",
    BOUND_QUANTILE: "the share of such requests that is to keep within the bounds: 0.5 to 0.99",
    INFEASIBLE: "`best-effort` (default: the least bad serves) or `reject` (422)",
    EXPLAIN: "`true` adds a `joulegate` object with every candidate's numbers to the answer",
    IMPACT: "`true` adds `usage.energy` and `usage.carbon` to the answer, as estimated at its end",
    AFFINITY: "`off`: what a backend's prefix cache holds of the conversation counts for nothing",
    LOAD_FORMAT: "vLLM's own, passed on: `JSON` or `TEXT` (unary answers only)",
    READ_TIMEOUT: "OpenAI's SDKs' own: who must wait is not made to wait longer than this",
    REQUEST_ID: "taken over if it is 1 to 128 letters, digits and `. _ : -`",
}

MODEL: Final = "x-joulegate-model"
BACKEND: Final = "x-joulegate-backend"
SCORE: Final = "x-joulegate-score"
PREDICTED_SECONDS: Final = "x-joulegate-predicted-seconds"
PREDICTED_JOULES: Final = "x-joulegate-predicted-joules"
ATTEMPTS: Final = "x-joulegate-attempts"
DECISION_US: Final = "x-joulegate-decision-us"
BUDGET: Final = "x-joulegate-budget"
FEASIBLE: Final = "x-joulegate-feasible"
EXPLORED: Final = "x-joulegate-explored"
LOAD: Final = "endpoint-load-metrics"

RESPONSE: Final = {
    REQUEST_ID: "the request's id, for `GET /v1/requests/{id}` and the log",
    MODEL: "the model that answered",
    BACKEND: "host and port of the server that answered",
    POLICY: "the policy that chose",
    SCORE: "the chosen model's score; lower is better",
    PREDICTED_SECONDS: "what the answer was predicted to take",
    PREDICTED_JOULES: "what it was predicted to cost",
    ATTEMPTS: "backends asked, the one that answered included",
    DECISION_US: "microseconds spent counting tokens and deciding",
    LOAD: "vLLM's own, where it was asked for: the load of the server that answered",
    BUDGET: "where a budget of the API key has nothing left: soft or hard, and when it renews",
    EXPLORED: "`true`, and only then, where a model was drawn to learn how good it is",
    FEASIBLE: "`false`, and only then, where every model breaks a bound and the least bad served",
}
EXPOSED: Final = (
    *RESPONSE,
    "retry-after",
    "x-should-retry",
    *(
        f"x-ratelimit-{figure}-{kind}"
        for figure in ("limit", "remaining", "reset")
        for kind in ("requests", "tokens")
    ),
)
"""What a page of another origin may read of an answer, as the SDKs do before they try again."""
