"""One request, as the metrics, `GET /v1/requests/{id}` and the decision log see it.

Rules: a stage (`request_stages`) is assigned once, complete, by whoever reaches it; attempts are
appended; joules are final once every attempt that a meter measures has been told, and `settled` is
made then.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from backends.meter.client.request_handle import EnergyCallback
from backends.meter.method import ESTIMATED, MeteringMethod
from gateway.scheduling.sequences import SINGLE, SequenceCounts
from gateway.telemetry.boundary import NO_HOST_SHARE, RequestBoundary
from gateway.telemetry.request_stages import (
    UNANSWERED,
    UNCOMPARED,
    UNPARSED,
    UNSERVED,
    AnsweredRequest,
    BackendAttempt,
    ClientOutcome,
    ComparedPredictions,
    ParsedRequest,
    PlannedRequest,
    ReceivedRequest,
    RequestedName,
    RequestEnergy,
    RequestFeedback,
    ServedRequest,
    WastedEnergy,
)
from gateway.telemetry.trace_context import TraceContext

_UNKNOWN_END = ClientOutcome(0)


class RequestRecord:
    """The log of one request: its stages, its attempts, and what its meters have yet to tell."""

    __slots__ = (
        "_measured",
        "_on_final",
        "answered",
        "attempts",
        "boundary",
        "compared",
        "feedback",
        "hold",
        "host",
        "last_tried",
        "logged",
        "outcome",
        "parsed",
        "planned",
        "received",
        "seconds",
        "served",
        "settled",
        "target",
        "trace",
        "unsettled",
        "wasted",
    )

    def __init__(
        self,
        received: ReceivedRequest,
        target: RequestedName,
        trace: TraceContext | None = None,
    ) -> None:
        """`target` holds the labels of a request whose model is not resolved yet.

        `trace` is where it stands in a trace: None without tracing, unless its client sent one.
        """
        self.received = received
        self.target = target
        self.trace = trace
        self.parsed: ParsedRequest = UNPARSED
        self.planned: PlannedRequest | None = None
        self.attempts: list[BackendAttempt] = []
        self.wasted: list[WastedEnergy] = []
        self.answered: AnsweredRequest | None = None
        self.last_tried: BackendAttempt | None = None
        """Who a request that nobody answered is put down to."""
        self.served: ServedRequest = UNSERVED
        self.outcome: ClientOutcome = _UNKNOWN_END
        self.seconds = 0.0
        """From its head to the end of its answer."""
        self.host = NO_HOST_SHARE
        """Its part of what its server drew besides accelerators, where a boundary is configured."""
        self.settled: RequestEnergy | None = None
        self.boundary: RequestBoundary | None = None
        """What it costs beyond its accelerators: drawn once it is settled."""
        self.compared: ComparedPredictions = UNCOMPARED
        self.feedback: RequestFeedback | None = None
        """The last word on whether the answer was right."""
        self.logged: dict[str, Any] | None = None
        """What the decision log alone gets: the prompt's features or text, where asked for."""
        self.hold: Any = None
        """What is held of its key's budgets until its joules are final, where there are any."""
        self.unsettled = 0
        """Attempts whose joules a meter has yet to tell."""
        self._measured: tuple[float, str] | None = None
        self._on_final: Callable[[RequestRecord], None] | None = None

    @property
    def id(self) -> str:
        """The request's id."""
        return self.received.id

    @property
    def tenant(self) -> str | None:
        """Whose key it carries; None where there are no keys."""
        return None if self.received.caller is None else self.received.caller.tenant

    @property
    def model(self) -> str:
        """Who answered, or was asked last; "" where nobody was."""
        return (self.answered or self.last_tried or UNANSWERED).model

    @property
    def backend(self) -> str:
        """Its backend, likewise."""
        return (self.answered or self.last_tried or UNANSWERED).backend

    @property
    def sequences(self) -> SequenceCounts:
        """How many prompts were to get how many answers; one each where that is not known."""
        return SINGLE if self.planned is None else self.planned.sequences

    def blame_last_attempt(self) -> None:
        """Put a request that nobody answered down to whom it was last sent."""
        if self.answered is None and self.attempts:
            self.last_tried = self.attempts[-1]

    def expect_answer_energy(self) -> EnergyCallback:
        """Wait for what a meter measures of the answer; return what it is to be told to."""
        self.unsettled += 1
        return self._take_answer_energy

    def expect_wasted_energy(self) -> EnergyCallback:
        """Wait for what a meter measures of the attempt wasted last."""
        self.unsettled += 1
        return partial(self._take_wasted_energy, len(self.wasted) - 1)

    def call_when_final(self, on_final: "Callable[[RequestRecord], None]") -> None:
        """Call `on_final` once no joules are awaited any more: now, or with the last of them."""
        if self.unsettled:
            self._on_final = on_final
        else:
            on_final(self)

    def settle_energy(
        self, to_grams: Callable[[float, float], float | None] | None
    ) -> RequestEnergy:
        """Make the last stage of what was measured, else estimated.

        `to_grams` gives the CO2e of some joules at a Unix time.
        """
        joules: float | None
        method: str | None
        wasted = tuple(self.wasted)
        estimated = self.served.estimated_joules
        joules, method = self._measured or (estimated, None if estimated is None else ESTIMATED)
        if joules is None and wasted and wasted[-1].model == self.model:
            # Nobody got an answer: what the last attempt spent is what the request cost.
            *rest, last = wasted
            joules, method, wasted = last.joules, last.method, tuple(rest)
        grams = None
        if to_grams is not None and joules is not None:
            grams = to_grams(joules, self.received.at)
        self.settled = RequestEnergy(joules, method, wasted, grams)
        return self.settled

    def _take_answer_energy(self, microjoules: int, method: MeteringMethod) -> None:
        if method != ESTIMATED or microjoules:
            self._measured = (microjoules / 1e6, method)
        self._end_waiting()

    def _take_wasted_energy(self, place: int, microjoules: int, method: MeteringMethod) -> None:
        if method != ESTIMATED or microjoules:
            self.wasted[place] = WastedEnergy(self.wasted[place].model, microjoules / 1e6, method)
        self._end_waiting()

    def _end_waiting(self) -> None:
        self.unsettled -= 1
        if not self.unsettled and self._on_final is not None:
            self._on_final(self)

    def to_log_line(self) -> dict[str, Any]:
        """Return a line of the decision log."""
        line, outcome = self.to_dict(), self.outcome
        line["error"] = outcome.logged or outcome.error
        if self.logged:
            line.update(self.logged)
        return line

    def to_dict(self) -> dict[str, Any]:
        """Return the shape of `GET /v1/requests/{id}`; the decision log's begins with it."""
        received, served, settled, planned = self.received, self.served, self.settled, self.planned
        answered = self.answered or UNANSWERED
        live, shadow = self.compared
        return {
            "id": received.id,
            "at": received.at,
            "kind": received.kind,
            **({} if received.caller is None else received.caller._asdict()),
            "requested": self.target.requested,
            "preset": self.target.preset,
            "model": self.model or None,
            "deployment": answered.deployment or None,
            "backend": self.backend or None,
            "stream": self.parsed.stream,
            "code": self.outcome.code,
            "error": self.outcome.error,
            "usage": {
                "prompt_tokens": served.prompt_tokens,
                "completion_tokens": served.completion_tokens,
                "cached_tokens": served.cached_tokens,
            },
            "predicted": answered.predictions_to_dict(),
            "observed": {
                "seconds": self.seconds,
                "serving_seconds": served.serving_seconds,
                "ttft_seconds": served.ttft_seconds,
                "joules": settled and settled.joules,
                "method": settled and settled.method,
                "co2e_grams": settled and settled.co2e_grams,
                "boundary": self.boundary and self.boundary.to_dict(),
            },
            "compared": {
                "live": live and live._asdict(),
                "shadow": shadow and shadow._asdict(),
            },
            "running": answered.running,
            "mean_running": served.mean_running,
            "harmonic_running": served.harmonic_running,
            "counted_tokens": planned and planned.counted_tokens,
            "asked_tokens": planned and planned.asked_tokens,
            "arm": self.target.arm,
            "attempts": [
                {"model": tried.model, "backend": tried.backend, "reason": tried.reason}
                for tried in self.attempts
            ],
            **({} if self.feedback is None else {"feedback": self.feedback.to_dict()}),
            "decision": planned
            and planned.decision.to_dict(request_id=received.id, decision_us=planned.decision_us),
        }
