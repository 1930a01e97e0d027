"""One finished request, as the metrics, `GET /v1/requests/{id}` and the decision log see it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.decision import RoutingDecision
from gateway.telemetry.boundary import RequestBoundary
from gateway.telemetry.trace_context import TraceContext

ESTIMATED = "estimated"
"""The method of joules that no meter measured."""


class BackendAttempt(NamedTuple):
    """One backend asked; `reason` is None where it answered."""

    model: str
    backend: str
    reason: str | None


@dataclass(slots=True)
class WastedEnergy:
    """Joules that went into an answer that nobody got: estimated, until a meter knows better."""

    model: str
    joules: float
    method: str | None = ESTIMATED


class ProfilePrediction(NamedTuple):
    """What a profile gives for an answer: its costs at the tokens there were, and its length."""

    profile_version: str
    seconds: float
    joules: float
    output_tokens: int


@dataclass(slots=True)
class RequestRecord:
    """Everything known of one request; seconds are durations, `at` is Unix time.

    `code` is the HTTP status the client saw, 499 where the client left first, and for an answer
    that broke midway the status it would have had. Joules are final once nothing is `unsettled`.
    """

    id: str
    at: float
    kind: str
    requested: str
    preset: str
    stream: bool
    model: str = ""
    deployment: str = ""
    backend: str = ""
    code: int = 0
    error: str | None = None
    decision: RoutingDecision | None = None
    decision_seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    seconds: float = 0.0
    ttft_seconds: float | None = None
    predicted_seconds: float | None = None
    predicted_joules: float | None = None
    predicted_ttft_seconds: float | None = None
    predicted_tpot_seconds: float | None = None
    joules: float | None = None
    method: str | None = None
    co2e_grams: float | None = None
    host_joules: float = 0.0
    """Its part of what its server drew besides accelerators, where a boundary is configured."""
    boundary: RequestBoundary | None = None
    running: int = 0
    """Requests that the backend was already serving when this one was sent to it."""
    mean_running: float | None = None
    """Other requests that the backend served meanwhile: the mean over the time of this one."""
    serving_seconds: float | None = None
    """From sending it to the end of the backend's answer."""
    counted_tokens: int | None = None
    """The gateway's own count of the prompt, before the model's ratio."""
    single: bool = True
    """Whether one prompt was to get one answer; usage is the sum over several."""
    asked_tokens: int | None = None
    """The most new tokens that the client asked for."""
    option: DeploymentOption | None = None
    """The deployment that answered, as the decision saw it."""
    live: ProfilePrediction | None = None
    shadow: ProfilePrediction | None = None
    unsettled: int = 0
    """Attempts whose joules a meter has yet to tell."""
    entered: bool = False
    """Whether all but its joules is accounted for."""
    arm: str | None = None
    """Of a switchback, where the request was routed and counts for one."""
    trace: TraceContext | None = None
    """Where it stands in a trace: None without tracing, unless its client sent a context."""
    attempts: list[BackendAttempt] = field(default_factory=list)
    wasted: list[WastedEnergy] = field(default_factory=list)

    @property
    def decision_us(self) -> float:
        """Microseconds spent counting tokens and deciding."""
        return round(self.decision_seconds * 1e6, 1)

    @property
    def final_joules(self) -> float | None:
        """Joules, once they are final."""
        return None if self.unsettled else self.joules

    @property
    def final_method(self) -> str | None:
        """How they were measured."""
        return None if self.unsettled else self.method

    def predictions_to_dict(self) -> dict[str, float | None]:
        """Return what was predicted of the answer that was given."""
        return {
            "seconds": self.predicted_seconds,
            "ttft_seconds": self.predicted_ttft_seconds,
            "time_per_output_token_seconds": self.predicted_tpot_seconds,
            "joules": self.predicted_joules,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the shape of `GET /v1/requests/{id}` and of a line in the decision log."""
        decision = self.decision
        return {
            "id": self.id,
            "at": self.at,
            "kind": self.kind,
            "requested": self.requested,
            "preset": self.preset,
            "model": self.model or None,
            "deployment": self.deployment or None,
            "backend": self.backend or None,
            "stream": self.stream,
            "code": self.code,
            "error": self.error,
            "usage": {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "cached_tokens": self.cached_tokens,
            },
            "predicted": self.predictions_to_dict(),
            "observed": {
                "seconds": self.seconds,
                "serving_seconds": self.serving_seconds,
                "ttft_seconds": self.ttft_seconds,
                "joules": self.final_joules,
                "method": self.final_method,
                "co2e_grams": self.co2e_grams,
                "boundary": self.boundary and self.boundary.to_dict(),
            },
            "compared": {
                "live": self.live and self.live._asdict(),
                "shadow": self.shadow and self.shadow._asdict(),
            },
            "running": self.running,
            "mean_running": self.mean_running,
            "counted_tokens": self.counted_tokens,
            "asked_tokens": self.asked_tokens,
            "arm": self.arm,
            "attempts": [attempt._asdict() for attempt in self.attempts],
            "decision": decision
            and decision.to_dict(request_id=self.id, decision_us=self.decision_us),
        }
