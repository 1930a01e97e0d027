"""What is known of a request, stage by stage; each is made once, when all of it is known.

    received -> parsed -> resolved -> planned -> answered -> served -> settled
                                                     |
                                                     +-> attempts, and the joules they wasted

A request may stop at any stage: what it did not reach stays None in its `RequestRecord`. What is
made and read most is a Struct: a tenth of a named tuple's time by keyword, a third to be read.
"""

from typing import Any, NamedTuple

from msgspec import Struct

from backends.meter.method import ESTIMATED
from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.decision import RoutingDecision
from gateway.scheduling.sequences import SINGLE, SequenceCounts

NO_TENANT = "none"
"""The `tenant` label where there are no keys, and of joules that are nobody's."""


class CallerIdentity(NamedTuple):
    """The public names of an API key and of its owner."""

    key_id: str
    tenant: str


class ReceivedRequest(Struct, frozen=True):
    """Its head is read. `at` is Unix time, `kind` the endpoint.

    `load_format` is what it asks vLLM to tell its load in, "" for nothing; `caller` whose key it
    carries, None where there are no keys, or where it carries none that is known; `client` is the
    address it came from, where an access log is kept.
    """

    id: str
    at: float
    kind: str
    load_format: str = ""
    caller: CallerIdentity | None = None
    read_timeout: bytes = b""
    client: str = ""


class ParsedRequest(Struct, frozen=True):
    """Its body is read."""

    stream: bool = False


class RequestedName(Struct, frozen=True):
    """The model it named is resolved: all are labels of metrics, of configured names only.

    `arm` is that of a switchback, where the request is routed and counts for one.
    """

    requested: str
    preset: str
    arm: str | None = None


class PlannedRequest(Struct, frozen=True):
    """The decision is made, from the gateway's own count of the prompt (None: not counted).

    `decision_seconds` is the time to count tokens and decide, `asked_tokens` the most new tokens
    that the client asked for. The backend's usage sums over `sequences`.
    """

    decision: RoutingDecision
    decision_seconds: float
    counted_tokens: int | None
    asked_tokens: int | None
    lesson: Any = None
    """What the learner of lengths keeps of it until its answer is known."""
    sequences: SequenceCounts = SINGLE
    trial: Any = None
    """What is learnt of its accuracy once it is judged."""

    @property
    def decision_us(self) -> float:
        """Microseconds spent counting tokens and deciding."""
        return round(self.decision_seconds * 1e6, 1)


class BackendAttempt(Struct, frozen=True):
    """One backend asked; `reason` is None where it answered."""

    model: str
    backend: str
    reason: str | None


class WastedEnergy(NamedTuple):
    """Joules of an answer that nobody got; `method` None: not counted."""

    model: str
    joules: float
    method: str | None = ESTIMATED


class AnsweredRequest(Struct, frozen=True):
    """A backend answers: who it is and what was predicted of it.

    `option` is the deployment as the decision saw it, `running` the requests that the backend was
    already serving when this one was sent.
    """

    model: str
    deployment: str
    backend: str
    option: DeploymentOption | None = None
    running: int = 0
    predicted_seconds: float | None = None
    predicted_joules: float | None = None
    predicted_ttft_seconds: float | None = None
    predicted_tpot_seconds: float | None = None

    def predictions_to_dict(self) -> dict[str, float | None]:
        """Return the predictions in their public shape."""
        return {
            "seconds": self.predicted_seconds,
            "ttft_seconds": self.predicted_ttft_seconds,
            "time_per_output_token_seconds": self.predicted_tpot_seconds,
            "joules": self.predicted_joules,
        }


class ServedRequest(Struct, frozen=True):
    """The answer is over, whole or not: the backend's counts, and joules predicted from those.

    `serving_seconds` is from sending the request to the end of the backend's answer,
    `ttft_seconds` from the request's head to the first content of a stream; `mean_running` is the
    other requests that the backend served meanwhile, the mean over that time, `harmonic_running`
    the harmonic mean of all of them, less 1.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft_seconds: float | None = None
    serving_seconds: float | None = None
    estimated_joules: float | None = None
    mean_running: float | None = None
    harmonic_running: float | None = None


class ClientOutcome(Struct, frozen=True):
    """What the client got. `code`: the HTTP status it saw, 499 where it left first.

    An answer that broke midway has the status that it would have had; 0: its task was cancelled by
    something unknown. `logged` is what logs and traces have for `error`, if it is not the same.
    """

    code: int
    error: str | None = None
    logged: str | None = None


class RequestFeedback(NamedTuple):
    """Somebody's word on an answer: `score` from 0, wrong, to 1, right; `at` is Unix time.

    It counts for a request of the same `tenant` alone; None where there are no keys.
    """

    id: str
    score: float
    source: str
    at: float
    tenant: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return its public shape."""
        found = self._asdict()
        if self.tenant is None:
            del found["tenant"]
        return found

    def to_log_line(self) -> dict[str, Any]:
        """Return a line of the decision log."""
        return {"feedback": self.to_dict()}


class RequestEnergy(NamedTuple):
    """Its joules are final: the answer's, by how they were measured, and those wasted on it."""

    joules: float | None
    method: str | None
    wasted: tuple[WastedEnergy, ...] = ()
    co2e_grams: float | None = None

    @property
    def total_joules(self) -> float:
        """All that the request cost, what was wasted on it included."""
        return (self.joules or 0.0) + sum(one.joules for one in self.wasted)

    @property
    def estimated_joules(self) -> float:
        """Of those, what no meter measured."""
        own = (self.joules or 0.0) if self.method == ESTIMATED else 0.0
        return own + sum(one.joules for one in self.wasted if one.method == ESTIMATED)


class ProfilePrediction(NamedTuple):
    """What a profile gives for an answer: its costs at the tokens there were, and its length."""

    profile_version: str
    seconds: float
    joules: float
    output_tokens: int


class ComparedPredictions(NamedTuple):
    """What the profiles in force and in shadow give for a whole answer."""

    live: ProfilePrediction | None = None
    shadow: ProfilePrediction | None = None


UNPARSED = ParsedRequest()
UNANSWERED = AnsweredRequest("", "", "")
UNSERVED = ServedRequest()
UNCOMPARED = ComparedPredictions()
