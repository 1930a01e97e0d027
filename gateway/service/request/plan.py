"""From a decoded request to a decision, nothing sent: name -> weights -> tokens -> ranking.

`POST /v1/route` ends here; an inference request goes on to `dispatch`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import structs

from backends.retry_after import round_up_seconds
from gateway.config import LogConfig
from gateway.cut_text import CutText
from gateway.experiment_config import BaselineConfig
from gateway.scheduling.decide import NO_POLICY, make_decision
from gateway.scheduling.decision import RoutingDecision
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.prefix_holders import NOTHING_HELD, DeploymentName, PrefixMarks
from gateway.scheduling.text_features import extract_text_features
from gateway.service.client.api_error import ApiError
from gateway.service.client.errors import (
    BackendsRateLimited,
    BackendsUnavailable,
    ContextExceeded,
    NoFeasibleModel,
    UnsupportedCapability,
)
from gateway.service.request.accuracy_learning import AccuracyTrial, JudgedCandidates
from gateway.service.request.candidates import Found, SelectedBackends, list_candidates
from gateway.service.request.capability_hints import suggest_capabilities
from gateway.service.request.conversation_prefix import NO_TEXTS
from gateway.service.request.deciding import Deciding
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.lessons import Lesson, make_lesson
from gateway.service.request.prompt_reader import ReadPrompt
from gateway.service.request.readers import read_features
from gateway.service.request.routing_table import RequestTarget, RoutingSnapshot
from gateway.service.request.steering import RequestSteering, resolve_steering
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import UNANSWERED, PlannedRequest
from gateway.tokens import TokenCounter


@dataclass(slots=True)
class RoutingPlan:
    """A decision with what it was made from; `seconds` is how long that took."""

    ask: InferenceRequest
    target: RequestTarget
    features: RequestFeatures
    steering: RequestSteering
    snapshot: RoutingSnapshot
    selected_backends: SelectedBackends
    decision: RoutingDecision
    seconds: float
    lesson: Lesson
    last_resort: bool = False
    """Whether no backend was available and this is of those that are asked for want of another."""
    prompt: ReadPrompt | None = None
    trial: AccuracyTrial | None = None
    """What is learnt of this request's accuracy once it is judged."""

    def find_shortest_wait(self) -> tuple[float, int] | None:
        """Return the shortest wait that a backend of these models asked for, and by what status."""
        return min(
            (
                (backend.wait_seconds, backend.wait_status)
                for place in self.snapshot.routed_deployments
                if self.target.model in {None, place.option.model}
                and (self.target.allowed is None or place.option.model in self.target.allowed)
                for backend in place.deployment.backends
                if backend.wait_seconds > 0.0
            ),
            default=None,
        )

    def explain_decision(self, request_id: str) -> bytes:
        """Return the decision in its public shape, as JSON."""
        return msgspec.json.encode(self._describe_decision(request_id))

    def explain_answer(self, record: RequestRecord) -> bytes:
        """Return the `joulegate` object of an answer: the decision, and its joules.

        What was observed is seldom known by the time an answer ends; `/v1/requests` has it then.
        """
        return msgspec.json.encode(
            {
                **self._describe_decision(record.id),
                "predicted": (record.answered or UNANSWERED).predictions_to_dict(),
                "observed": {
                    "joules": record.settled and record.settled.joules,
                    "method": record.settled and record.settled.method,
                },
            }
        )

    def note(self, record: RequestRecord, log: LogConfig) -> None:
        """Note the decision, and what the log is to keep of the prompt."""
        record.planned = PlannedRequest(
            self.decision,
            self.seconds,
            self.features.tokens_in,
            self.features.asked_tokens_out,
            self.lesson,
            self.features.sequence_counts,
            self.trial,
        )
        record.logged = self.describe_text(log)

    def forget_draw(self, record: RequestRecord) -> None:
        """Note that nobody was drawn after all: the request is not sent."""
        self.decision = self.decision._replace(exploration=None)
        if record.planned is not None:
            record.planned = structs.replace(record.planned, decision=self.decision)

    def describe_text(self, log: LogConfig) -> dict[str, Any] | None:
        """Return what the decision log is to keep of the prompt's text; None: nothing."""
        if not (log.features or log.prompts) or not self.ask.words:
            return None
        found: dict[str, Any] = {}
        if log.prompts:
            words = self.ask.words
            found["prompt"] = words.decode_whole() if isinstance(words, CutText) else words
        if log.features:
            read = self.prompt
            if read is None or read.model is None:  # not read, or not its form
                text = extract_text_features(self.ask.words)
            else:
                text = read.text
            # Sorted: the order of the text is nobody's to read.
            found["features"] = {"words": tuple(sorted(text.words)), "form": text.form}
        return found

    def _describe_decision(self, request_id: str) -> dict[str, Any]:
        us = round(self.seconds * 1e6, 1)
        shape = self.decision.to_dict(request_id=request_id, decision_us=us)
        if self.prompt is not None and "prompt" in shape:
            # To the client that sent the words, and to nobody else.
            shape["prompt"]["features"] = self.prompt.explain(self.ask.words)
        return shape


def make_plan(
    ask: InferenceRequest,
    target: RequestTarget,
    headers: Mapping[bytes, bytes],
    snapshot: RoutingSnapshot,
    counter: TokenCounter,
    deciding: Deciding | None = None,
    baseline: BaselineConfig | None = None,
    *,
    draws: bool = False,
) -> RoutingPlan:
    """Decide for one request, by a switchback's `baseline` where that is due. Raises BadRequest.

    `draws`: where accuracy is learnt, another than the best may be drawn; a dry run only says how
    likely.
    """
    began = time.perf_counter()
    steering = target.steering
    if baseline is not None and baseline.policy is not None:
        steering = steering._replace(policy=baseline.policy)
    wishes = resolve_steering(headers, ask.members.get("joulegate"), steering)
    features = read_features(ask, counter)
    if target.model is not None:
        # The caller chose; what is left to check is whether the endpoint is served at all.
        features = replace(features, needs=ask.kind.needs, lenient=True)
    deciding = deciding or Deciding()
    learnt = deciding.learnt
    application = "" if learnt is None else learnt.hash_application(ask.application)
    prefix, held = _find_prefix(ask, deciding, application, wishes)
    prompt: ReadPrompt | None = None
    learning = None
    if learnt is not None and learnt.accuracy is not None:
        # Who names the model, or wants no text, leaves nothing to learn of.
        learning = learnt.accuracy if target.model is None and ask.kind.generates else None
    if ask.words and (snapshot.reads_text or learning is not None):
        model = snapshot.profile.prompt_accuracy
        prompt = deciding.reader.read(ask.words, ask.system, model, ask.earlier)
    ask.earlier = ()

    judged: JudgedCandidates | None = None

    def decide(*, last_resort: bool) -> tuple[RoutingDecision, Found]:
        nonlocal judged
        found = list_candidates(
            snapshot,
            target.model,
            features,
            deciding,
            application,
            prompt,
            wishes.bounds.quantile,
            held=held,
            last_resort=last_resort,
            allowed=target.allowed,
        )
        if learning is not None:
            judged = learning.judge_candidates(found.candidates, prompt, wishes.bounds.quantile)
        decision = make_decision(
            features,
            found.candidates if judged is None else judged.candidates,
            deciding.weigh(wishes.weights),
            policy=wishes.policy,
            bounds=wishes.bounds,
            best_effort=not wishes.reject,
            profile_version=snapshot.profile.version,
            label=None if target.model is None else NO_POLICY,
            reference_load=deciding.reference_load,
            # Who names the model chooses nothing: its place is the config's to choose.
            place_weights=None if target.model is None else target.steering.weights,
            prompt=prompt and prompt.summarise(),
        )
        return decision, found

    decision, found = decide(last_resort=False)
    last_resort = not decision.candidates and any(out.code == "down" for out in decision.excluded)
    if last_resort:
        decision, found = decide(last_resort=True)
    if baseline is not None and baseline.model is not None:
        decision = _put_first(decision, baseline.model)
    if learning is not None and judged is not None and baseline is None:
        decision = learning.explore(ask, decision, judged, draws=draws)
    lesson = make_lesson(
        features, application, found.bases, has_media=ask.has_media, prefix=prefix, held=held
    )
    seconds = time.perf_counter() - began
    return RoutingPlan(
        ask, target, features, wishes, snapshot, found.picks, decision, seconds, lesson,
        last_resort, prompt, None if judged is None else judged.trial,
    )  # fmt: skip


def _find_prefix(
    ask: InferenceRequest, deciding: Deciding, application: str, wishes: RequestSteering
) -> tuple[PrefixMarks | None, Mapping[DeploymentName, Mapping[str, int]]]:
    """Return a conversation's beginnings and who holds them; its texts are let go of."""
    texts, ask.texts = ask.texts, NO_TEXTS
    learnt = deciding.learnt
    if learnt is None or not (deciding.rules.affinity and wishes.affinity):
        return None, NOTHING_HELD
    prefix = learnt.mark_prefixes(texts, application)
    if prefix is None:
        return None, NOTHING_HELD
    return prefix, learnt.prefixes.find_held_tokens(prefix, time.monotonic())


def _put_first(decision: RoutingDecision, model: str) -> RoutingDecision:
    """Return the decision with a model's candidates first; one that has none stays as it is."""
    ranked = sorted(decision.candidates, key=lambda scored: scored.model != model)
    return decision._replace(candidates=tuple(ranked))


def no_candidate_error(
    decision: RoutingDecision, prompt: str = "messages", *, wait: tuple[float, int] | None = None
) -> ApiError:
    """Return the error for a decision without candidates, by what excluded them.

    `prompt` names the member that a context too small for it is blamed on; `wait` is the shortest
    `Retry-After` that is not over, in seconds, and the status that it came with.
    """
    codes = {out.code for out in decision.excluded}
    reasons = "; ".join(f"{out.deployment}: {out.reason}" for out in decision.excluded)
    if "bound" in codes:
        return NoFeasibleModel(f"no model keeps within the bounds ({reasons})")
    if "down" in codes and wait is not None:
        kind = (
            BackendsRateLimited if wait[1] == HTTPStatus.TOO_MANY_REQUESTS else BackendsUnavailable
        )
        said = f"every backend asked not to be asked for a while ({reasons})"
        return kind(said, retry_after_seconds=round_up_seconds(wait[0]))
    if "down" in codes:
        return BackendsUnavailable(f"no usable backend ({reasons})", retry_after_seconds=1)
    if "context" in codes:
        said = f"the prompt and the asked output fit no model ({reasons})"
        return ContextExceeded(said, param=prompt)
    return UnsupportedCapability(
        f"no model offers what this request needs ({reasons})"
        f"{suggest_capabilities(decision.excluded)}",
        param="model",
    )
