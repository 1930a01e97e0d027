"""What goes into a ranking and what comes out: weights, bounds, the decision itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.scheduling.answer_length import AnswerLength


class MetricWeights(NamedTuple):
    """How much a caller cares for each metric; they sum to 1 when made by `of`."""

    accuracy: float
    energy: float
    time: float

    @classmethod
    def from_values(
        cls, accuracy: float = 0.0, energy: float = 0.0, time: float = 0.0
    ) -> "MetricWeights":
        """Normalise to sum 1. Raises ValueError on a negative or non-finite weight, or all 0."""
        # No generators: callers that send weights send them with every request.
        if not (0.0 <= accuracy < math.inf and 0.0 <= energy < math.inf and 0.0 <= time < math.inf):
            raise ValueError("weights must be finite and not negative")
        largest = max(accuracy, energy, time)
        if largest == 0.0:
            raise ValueError("weights must not all be zero")
        # Dividing by the largest first keeps the sum finite.
        accuracy, energy, time = accuracy / largest, energy / largest, time / largest
        total = accuracy + energy + time
        return cls(accuracy / total, energy / total, time / total)


METRICS = MetricWeights._fields
"""Their names, in the order in which costs and terms stand."""

PRESETS = {
    "accuracy": MetricWeights.from_values(0.8, 0.1, 0.1),
    "energy": MetricWeights.from_values(0.1, 0.8, 0.1),
    "time": MetricWeights.from_values(0.1, 0.1, 0.8),
    "balanced": MetricWeights.from_values(1, 1, 1),
    "frugal": MetricWeights.from_values(0, 1, 0),
}
"""The presets that need no configuration."""


DEFAULT_QUANTILE = 0.9
_NO_LENGTH = AnswerLength(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class PredictionBounds:
    """Hard limits on the predictions; None leaves one open."""

    max_latency_ms: float | None = None
    max_energy_joules: float | None = None
    min_accuracy: float | None = None
    quantile: float = DEFAULT_QUANTILE
    """The share of such requests that is to keep within the first two."""
    accuracy_within: float | None = None
    """How far below the best candidate's accuracy another may lie."""

    @property
    def has_limits(self) -> bool:
        """Whether any of the first three is not open."""
        return not (
            self.max_latency_ms is None
            and self.max_energy_joules is None
            and self.min_accuracy is None
        )


NO_BOUNDS = PredictionBounds()
PRESET_BOUNDS = {"frugal": PredictionBounds(accuracy_within=0.03)}
"""Bounds of built-in presets: `frugal` is the least energy that is nearly as likely right."""


class ExcludedCandidate(NamedTuple):
    """A candidate left out; `code` is one of a few words, `reason` begins with it."""

    model: str
    deployment: str
    code: str
    reason: str


class PromptSummary(NamedTuple):
    """What accuracies were read from: form of the model, how far the prompt is from training.

    `distance` is 0 where such prompts are well known and 1 where nothing is; `known` the part of
    the prediction in the accuracies, the rest being the static share; `kind` the likeliest kind.
    """

    form: str
    distance: float
    known: float
    kind: str | None = None
    kind_share: float | None = None


class Exploration(NamedTuple):
    """How the lot was drawn, where accuracies are learnt online.

    `greedy` is the deployment that looks best; `propensities` are by (model, deployment); `lot` is
    the draw, None where none was made. `answers_lost` and `joules_added` are what was charged: the
    expectations over the propensities, against the greedy choice.
    """

    method: str
    explored: bool
    greedy: str
    propensities: Mapping[tuple[str, str], float]
    lot: float | None
    answers_lost: float
    joules_added: float

    def to_dict(self) -> dict[str, Any]:
        """Return the public shape: propensities stand with their candidates."""
        found = self._asdict()
        del found["propensities"]
        return found

    def describe_propensity(self, scored: "ScoredCandidate") -> dict[str, float]:
        """Return how likely a candidate was to be asked first."""
        return {"propensity": self.propensities.get((scored.model, scored.deployment), 0.0)}


class PlacePrediction(NamedTuple):
    """What a request is predicted to cost at one backend, at that backend's own load.

    `cached_tokens` of the prompt are expected in its prefix cache, and not charged.
    """

    backend: str
    why: str
    running: int
    predicted_seconds: float
    predicted_joules: float
    cached_tokens: int = 0


class ScoredCandidate(NamedTuple):
    """A ranked candidate with its predictions, normalised costs and weighted terms.

    `predicted_*` are at the chosen place; `reference_joules`, which `costs` are made
    of, at the load at which all candidates are compared. `length` is the distribution of one
    answer that was used.
    """

    model: str
    deployment: str
    score: float
    accuracy: float
    predicted_seconds: float
    predicted_joules: float
    costs: tuple[float, float, float]
    terms: tuple[float, float, float]
    running: int
    queued: int
    tokens_in: int
    tokens_out: int
    floored: bool
    reference_joules: float = 0.0
    tokens_out_p90: int = 0
    source: str = "profile"
    length: AnswerLength = _NO_LENGTH
    backend: str = ""
    places: tuple[PlacePrediction, ...] = ()
    accuracy_lower: float | None = None
    """What a bound on accuracy is held against; None: `accuracy` itself."""


class RoutingDecision(NamedTuple):
    """A ranking and everything that led to it, best first.

    `feasible` is false where every candidate breaks a bound; `candidates` then holds them by how
    little they break it, and `excluded` says what each breaks.
    """

    policy: str
    weights: MetricWeights
    candidates: tuple[ScoredCandidate, ...]
    excluded: tuple[ExcludedCandidate, ...]
    feasible: bool
    profile_version: str
    reference_load: float | None = None
    """Requests beside this one at which joules were compared; None: each place's own."""
    prompt: PromptSummary | None = None
    exploration: Exploration | None = None

    @property
    def best_candidate(self) -> ScoredCandidate | None:
        """The winner, or None where nothing can serve the request."""
        return self.candidates[0] if self.candidates else None

    def to_dict(self, *, request_id: str, decision_us: float) -> dict[str, Any]:
        """Return the public shape: dry run, `--json`, explain and log show this one."""
        best, explored = self.best_candidate, self.exploration
        return {
            "id": request_id,
            "model": best.model if best else None,
            "policy": self.policy,
            "weights": self.weights._asdict(),
            "tokens": {
                "input": best.tokens_in if best else None,
                "output": best.tokens_out if best else None,
                "output_p90": best.tokens_out_p90 if best else None,
                "source": best.source if best else None,
            },
            "score": best.score if best else None,
            "profile_version": self.profile_version,
            "reference_load": self.reference_load,
            "decision_us": decision_us,
            **({} if self.prompt is None else {"prompt": self.prompt._asdict()}),
            **({} if explored is None else {"exploration": explored.to_dict()}),
            "candidates": [_describe_candidate(scored, explored) for scored in self.candidates],
            "excluded": [
                {"model": out.model, "deployment": out.deployment, "reason": out.reason}
                for out in self.excluded
            ],
            "feasible": self.feasible,
        }


def _describe_candidate(scored: ScoredCandidate, explored: Exploration | None) -> dict[str, Any]:
    """Return its public shape; with its tokens' mu and sigma a decision can be repeated.

    All values are taken out at once: one by one they cost each line of the decision log 3 us.
    """
    (
        model, deployment, score, accuracy, predicted_seconds, predicted_joules, costs, terms,
        running, queued, tokens_in, tokens_out, _, reference_joules, tokens_out_p90, source,
        (mu, sigma), backend, places, accuracy_lower,
    ) = scored  # fmt: skip
    cost_of_accuracy, cost_of_energy, cost_of_time = costs
    term_of_accuracy, term_of_energy, term_of_time = terms
    return {
        "model": model,
        "deployment": deployment,
        "score": score,
        "accuracy": accuracy,
        **({} if accuracy_lower is None else {"accuracy_lower": accuracy_lower}),
        **({} if explored is None else explored.describe_propensity(scored)),
        "predicted_seconds": predicted_seconds,
        "predicted_joules": predicted_joules,
        "reference_joules": reference_joules,
        "tokens": {
            "input": tokens_in,
            "output": tokens_out,
            "output_p90": tokens_out_p90,
            "source": source,
            "mu": mu,
            "sigma": sigma,
        },
        "costs": {
            "accuracy": cost_of_accuracy,
            "energy": cost_of_energy,
            "time": cost_of_time,
        },
        "terms": {
            "accuracy": term_of_accuracy,
            "energy": term_of_energy,
            "time": term_of_time,
        },
        "backend": backend or None,
        "running": running,
        "queued": queued,
        "places": [_describe_place(place) for place in places if place.backend],
    }


def _describe_place(place: PlacePrediction) -> dict[str, Any]:
    backend, why, running, seconds, joules, cached = place
    shown = {
        "backend": backend,
        "why": why,
        "running": running,
        "predicted_seconds": seconds,
        "predicted_joules": joules,
    }
    if cached:
        shown["cached_tokens"] = cached
    return shown
