"""Accuracy learnt online, for one process: what candidates look like, who is tried, what is judged.

Rules: without `learning.accuracy` nothing here exists. An answered request waits for its judgement
by id, the oldest giving way; its first judgement is learnt and no other. Of a prompt only hashed
words and its shape are kept, in memory. What one worker is told of another's request it passes on.
"""

import hashlib
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from gateway.profile import CostProfile
from gateway.scheduling.accuracy_bandit import (
    AccuracyBandit,
    JudgedFeatures,
    read_judged_features,
)
from gateway.scheduling.answer_length import find_normal_quantile
from gateway.scheduling.candidate import RoutingCandidate
from gateway.scheduling.decision import RoutingDecision
from gateway.scheduling.exploration import AccuracyExplorer, ExplorationCharge, ExplorationRules
from gateway.scheduling.prompt_accuracy import AccuracyEstimate
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.prompt_reader import ReadPrompt
from gateway.telemetry.record import RequestRecord

_MOST_WAITING: Final = 20_000


class AnswerJudged(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """A judgement with what is learnt from it; `static` is the prediction without learning."""

    model: str
    words: list[int]
    shape: list[float]
    kinds: list[float]
    static: float
    score: float
    at_seconds: float
    profile: str


class FeedbackHeard(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A judgement of a request that another worker may have served."""

    id: str
    score: float
    at_seconds: float


class AccuracyTrial(NamedTuple):
    """What a request keeps until it is judged: features, and predictions without learning."""

    features: JudgedFeatures
    statics: Mapping[str, float]
    profile: str


class _WaitingAnswer(NamedTuple):
    """An answered request that nobody has judged yet; its words are packed."""

    model: str
    words: "array[int]"
    shape: tuple[float, ...]
    kinds: tuple[float, ...]
    static: float
    profile: str


@dataclass(slots=True)
class JudgedCandidates:
    """Candidates with what was learnt of them, and how uncertain that is, by model."""

    candidates: list[RoutingCandidate]
    trial: AccuracyTrial
    deviations: dict[str, float] = field(default_factory=dict)


class AccuracyLearning:
    """One process's; workers tell each other their judgements."""

    def __init__(self, rules: ExplorationRules, half_life_seconds: float) -> None:
        self._bandit = AccuracyBandit(half_life_seconds)
        self._explorer = AccuracyExplorer(rules)
        self._waiting: dict[str, _WaitingAnswer] = {}
        self._profile = ""

    def judge_candidates(
        self, candidates: Sequence[RoutingCandidate], read: ReadPrompt | None, quantile: float
    ) -> JudgedCandidates:
        """Return the candidates with what was learnt added to their accuracies."""
        z = find_normal_quantile(quantile)
        kinds = () if read is None or read.reading is None else read.reading.kinds
        features = read_judged_features(None if read is None else read.text, kinds)
        statics: dict[str, float] = {}
        found = JudgedCandidates([], AccuracyTrial(features, statics, self._profile))
        for one in candidates:
            model = one.option.model
            static = statics[model] = one.accuracy
            learnt = self._bandit.predict(model, features, static)
            found.deviations[model] = learnt.deviation
            lower = one.accuracy_lower + learnt.value - static - z * learnt.deviation
            judged = AccuracyEstimate(learnt.value, max(0.0, lower))
            found.candidates.append(one._replace(judged=judged))
        return found

    def explore(
        self,
        ask: InferenceRequest,
        decision: RoutingDecision,
        judged: JudgedCandidates,
        *,
        draws: bool,
    ) -> RoutingDecision:
        """Return the decision with its propensities; drawn, unless it is a dry run's.

        A request that is decided anew (it waited) is charged for its last draw alone.
        """
        now = time.time()
        if draws:
            self.refund_draw(ask)
        decision = self._explorer.explore(decision, judged.deviations, now, draws=draws)
        made = decision.exploration
        if draws and made is not None:
            ask.charge = ExplorationCharge(now, made.answers_lost, made.joules_added)
        return decision

    def refund_draw(self, ask: InferenceRequest) -> None:
        """Give back what a request's draw was charged: it is not sent by it."""
        if ask.charge is not None:
            self._explorer.refund(ask.charge)
            ask.charge = None

    def await_judgement(self, record: RequestRecord) -> None:
        """Keep what an answered request teaches once it is judged."""
        planned = record.planned
        trial = None if planned is None else planned.trial
        if not isinstance(trial, AccuracyTrial) or record.outcome.code != HTTPStatus.OK:
            return
        static = trial.statics.get(record.model)
        if static is None or trial.profile != self._profile:
            return
        while len(self._waiting) >= _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        words, shape, kinds = trial.features
        self._waiting[record.id] = _WaitingAnswer(
            record.model, array("H", words), shape, kinds, static, trial.profile
        )

    def take_judgement(self, heard: FeedbackHeard) -> AnswerJudged | None:
        """Return the lesson of a judgement; None where its request does not wait here."""
        found = self._waiting.pop(heard.id, None)
        if found is None:
            return None
        return AnswerJudged(
            found.model, list(found.words), list(found.shape), list(found.kinds), found.static,
            heard.score, heard.at_seconds, found.profile,
        )  # fmt: skip

    def learn(self, lesson: AnswerJudged) -> None:
        """Take a judgement that this worker or another was told; one of other accuracies not."""
        if lesson.profile != self._profile:
            return
        features = JudgedFeatures(tuple(lesson.words), tuple(lesson.shape), tuple(lesson.kinds))
        self._bandit.observe(lesson.model, features, lesson.static, lesson.score, lesson.at_seconds)

    def fade(self) -> None:
        """Forget as much as time says; seldom does anything."""
        self._bandit.fade(time.time())

    def adopt(self, profile: CostProfile) -> None:
        """Begin anew where the accuracies that are corrected are no longer the same."""
        found = sign_accuracies(profile)
        if self._profile and found != self._profile:
            self._bandit.forget_all()
            self._waiting.clear()
        self._profile = found

    def to_state(self) -> dict[str, Any]:
        """Return what is to survive a restart."""
        return {
            "profile": self._profile,
            "beliefs": self._bandit.to_state(),
            "explorer": self._explorer.to_state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError, KeyError, IndexError."""
        self._explorer.restore(state["explorer"])
        self._bandit.restore(state["beliefs"])
        self._profile = str(state["profile"])


def sign_accuracies(profile: CostProfile) -> str:
    """Return what differs between profiles that predict other accuracies."""
    told = hashlib.sha256()
    for name, fitted in sorted(profile.models.items()):
        told.update(f"{name} {fitted.accuracy.default!r}\n".encode())
    model = profile.prompt_accuracy
    if model is not None:
        told.update(f"{model.mix!r}".encode())
        for name, head in sorted(model.heads.items()):
            told.update(f"{name} {head.bias!r} {head.kinds!r} {head.form!r}".encode())
            told.update(head.words.tobytes())
    return told.hexdigest()[:16]
