"""A decision as it was logged or answered, read back so that it can be made again.

Rules: a line of the decision log, a record of `/v1/requests/{id}`, an answer of `/v1/route` and an
answer with its explanation all hold one, of one shape; of a log the line of a request is taken, or
else the last that has a decision. Nothing is predicted anew: what was learnt, and each place's
load, are in the predictions.
"""

from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.decision import (
    ExcludedCandidate,
    MetricWeights,
    RoutingDecision,
    ScoredCandidate,
)

_HOLDERS: Final = ("decision", "joulegate")


class UnusableDecision(ValueError):
    """No decision that can be made again is there; the text says why."""


class _Tokens(Struct):
    input: int
    output: int
    output_p90: int = 0
    source: str = "profile"
    mu: float = 0.0
    sigma: float = 1.0


class _Candidate(Struct):
    model: str
    accuracy: float
    predicted_seconds: float
    predicted_joules: float
    reference_joules: float
    tokens: _Tokens
    deployment: str | None = None
    backend: str = ""
    running: int = 0
    queued: int = 0


class _Excluded(Struct):
    model: str
    deployment: str
    reason: str


class _Decision(Struct):
    policy: str
    weights: dict[str, float]
    candidates: list[_Candidate]
    id: str = ""
    excluded: list[_Excluded] = []
    feasible: bool = True
    profile_version: str = ""
    reference_load: float | None = None


_decision = msgspec.json.Decoder(_Decision)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MOST_BYTES: Final = 16 * 1024 * 1024
"""Of an answer that spans lines; a log is read line by line, however long it is."""


def read_logged_decision(path: Path, request_id: str | None) -> tuple[str, RoutingDecision]:
    """Return a request's id and its decision, the chosen candidate first.

    Raises UnusableDecision where there is none, and OSError.
    """
    found: _Decision | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                decision = _find_decision(line)
            except msgspec.DecodeError as error:
                if number > 1:
                    continue  # half a line, as a crash leaves it
                try:
                    decision = _find_decision(line + file.read(_MOST_BYTES))
                except msgspec.DecodeError:
                    raise UnusableDecision(
                        f"{path}: no JSON that holds a decision: {error}"
                    ) from None
            if decision is not None and request_id in {None, decision.id}:
                found = decision
    if found is None:
        named = f" of request {request_id}" if request_id else ""
        raise UnusableDecision(f"{path}: no decision{named} in it")
    return found.id, _make_decision(found)


def _find_decision(text: bytes) -> _Decision | None:
    """Return the decision of a JSON object; None where it holds none. Raises DecodeError."""
    members = _members.decode(text)
    if "candidates" in members:
        return _decision.decode(text)
    for holder in _HOLDERS:
        if holder in members and bytes(members[holder]) != b"null":
            return _decision.decode(members[holder])
    return None


def _make_decision(found: _Decision) -> RoutingDecision:
    if not found.feasible or not found.candidates:
        raise UnusableDecision("no candidate kept within the bounds: nothing was ranked by score")
    try:
        weights = MetricWeights.from_values(**found.weights)
    except (TypeError, ValueError) as error:
        raise UnusableDecision(f"its weights are not weights: {error}") from None
    return RoutingDecision(
        found.policy,
        weights,
        tuple(map(_make_candidate, found.candidates)),
        tuple(
            ExcludedCandidate(one.model, one.deployment, "", one.reason) for one in found.excluded
        ),
        found.feasible,
        found.profile_version,
        found.reference_load,
    )


def _make_candidate(one: _Candidate) -> ScoredCandidate:
    if not min(one.predicted_seconds, one.predicted_joules, one.reference_joules) > 0.0:
        raise UnusableDecision(f"{one.model}: its predictions are not above 0")
    return ScoredCandidate(
        model=one.model,
        deployment=one.deployment or one.model,
        score=0.0,
        accuracy=one.accuracy,
        predicted_seconds=one.predicted_seconds,
        predicted_joules=one.predicted_joules,
        costs=(0.0, 0.0, 0.0),
        terms=(0.0, 0.0, 0.0),
        running=one.running,
        queued=one.queued,
        tokens_in=one.tokens.input,
        tokens_out=one.tokens.output,
        floored=False,
        reference_joules=one.reference_joules,
        tokens_out_p90=one.tokens.output_p90,
        source=one.tokens.source,
        length=AnswerLength(one.tokens.mu, one.tokens.sigma),
        backend=one.backend,
    )
