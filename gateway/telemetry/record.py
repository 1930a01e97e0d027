"""One finished request, as the metrics, `GET /v1/requests/{id}` and the decision log see it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.scheduling.decision import Decision

ESTIMATED = "estimated"
"""How joules were had where no meter measured them."""


class Attempt(NamedTuple):
    """One backend asked; `reason` is None where it answered."""

    model: str
    backend: str
    reason: str | None


class Wasted(NamedTuple):
    """Joules estimated to have gone into an answer that nobody got."""

    model: str
    joules: float


@dataclass(slots=True)
class Record:
    """Everything known of one request; seconds are durations, `at` is Unix time.

    `code` is the HTTP status the client saw, 499 where the client left first, and for an answer
    that broke midway the status it would have had.
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
    decision: Decision | None = None
    decision_seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    seconds: float = 0.0
    ttft_seconds: float | None = None
    predicted_seconds: float | None = None
    predicted_joules: float | None = None
    joules: float | None = None
    method: str | None = None
    attempts: list[Attempt] = field(default_factory=list)
    wasted: list[Wasted] = field(default_factory=list)

    @property
    def decision_us(self) -> float:
        """Microseconds spent counting tokens and deciding."""
        return round(self.decision_seconds * 1e6, 1)

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
            "predicted": {"seconds": self.predicted_seconds, "joules": self.predicted_joules},
            "observed": {
                "seconds": self.seconds,
                "ttft_seconds": self.ttft_seconds,
                "joules": self.joules,
                "method": self.method,
            },
            "attempts": [attempt._asdict() for attempt in self.attempts],
            "decision": decision
            and decision.to_dict(request_id=self.id, decision_us=self.decision_us),
        }
