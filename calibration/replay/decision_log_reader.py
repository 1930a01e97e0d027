"""One line of the gateway's decision log: the request as it was, or why it is skipped."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

from calibration.tables.feedback import LoggedRequestKey, identify_request
from gateway.scheduling.decide import NO_POLICY, POLICIES
from gateway.scheduling.decision import MetricWeights

PINNED: Final = "named its model (policy none)"
MAX_TOKEN_COUNT: Final = 10**9
"""Largest count taken for tokens."""
_FAILED: Final = 400
_GONE: Final = 499


class LoggedDeployment(NamedTuple):
    """A deployment as the log names it."""

    model: str
    deployment: str


class LoggedDraw(NamedTuple):
    """How likely a candidate was to be asked first, and the accuracy that it was decided by."""

    propensity: float
    accuracy: float


class LoggedTokens(NamedTuple):
    """A candidate's tokens as they were decided by: its own count, its length's mu and sigma."""

    input: int
    mu: float
    sigma: float
    source: str


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it was; None is what is not known.

    `tokens_in` is what the gateway counted, on the scale of the model `counted_for` (None:
    tiktoken's); `prompt_tokens` and `tokens_out` are the usage of the model `answered` by.
    `counted_tokens` is tiktoken's count, and `tokens` what each candidate was decided by.
    `running` holds the candidates of that moment and how many requests each was serving.
    """

    tokens_in: int
    asked_tokens_out: int | None = None
    predicted_tokens_out: int | None = None
    counted_for: LoggedDeployment | None = None
    prompt_tokens: int | None = None
    tokens_out: int | None = None
    answered: LoggedDeployment | None = None
    running: Mapping[LoggedDeployment, int] | None = None
    excluded: frozenset[LoggedDeployment] = frozenset()
    weights: MetricWeights | None = None
    policy: str | None = None
    profile_version: str = ""
    seconds: float | None = None
    joules: float | None = None
    counted_tokens: int | None = None
    tokens: Mapping[LoggedDeployment, LoggedTokens] | None = None
    reference_load: float | None = None
    measured: bool = False
    """Whether the joules are a meter's."""
    key: LoggedRequestKey = ("", "")
    draws: Mapping[LoggedDeployment, LoggedDraw] | None = None
    """Where the gateway was exploring: each candidate's part of the draw."""
    score: float | None = None
    """What feedback said of the answer, 0 to 1."""


class BadLine(Exception):
    """A line that cannot be used; the text is the reason it is counted under."""


class LeftOut(Exception):
    """A request that is not for replay; the text is the reason it is counted under."""


def parse_log_line(line: Mapping[str, Any], *, pinned: bool) -> RecordedRequest:
    """Read a line; `pinned` takes one that named its model, too. Raises BadLine, LeftOut."""
    decision = _parse_decision(line, pinned=pinned)
    candidates = _get_list(decision, "candidates")
    if not candidates:
        raise LeftOut("no candidate could serve it")
    running = {
        _parse_deployment(one): _parse_count(one.get("running", 0), "running") or 0
        for one in candidates
    }
    tokens, usage, observed = (
        _get_dict(*pair) for pair in ((decision, "tokens"), (line, "usage"), (line, "observed"))
    )
    tokens_in = _parse_count(tokens.get("input"), "tokens.input")
    if not tokens_in:
        raise BadLine("no tokens.input in its decision")
    policy = str(decision.get("policy"))
    whole = line["code"] != _GONE  # one that left early has not seen its whole answer
    return RecordedRequest(
        tokens_in=tokens_in,
        asked_tokens_out=_parse_count(line.get("asked_tokens"), "asked_tokens") or None,
        counted_tokens=_parse_count(line.get("counted_tokens"), "counted_tokens") or None,
        tokens=_tokens(candidates),
        reference_load=_parse_real(decision.get("reference_load"), "reference_load"),
        predicted_tokens_out=_parse_count(tokens.get("output"), "tokens.output"),
        counted_for=_parse_deployment(candidates[0]),
        prompt_tokens=_parse_count(usage.get("prompt_tokens"), "prompt_tokens") or None,
        tokens_out=_parse_count(usage.get("completion_tokens"), "completion_tokens")
        if whole
        else None,
        answered=_parse_answered(line),
        running=running,
        excluded=frozenset(_parse_deployment(one) for one in _get_list(decision, "excluded"))
        - set(running),
        weights=_parse_weights(decision),
        policy=None if policy == NO_POLICY else policy,
        profile_version=str(decision.get("profile_version", "")),
        seconds=_parse_real(observed.get("seconds"), "observed.seconds") if whole else None,
        joules=_parse_real(observed.get("joules"), "observed.joules") if whole else None,
        measured=observed.get("method") in {"exclusive", "apportioned", "simulated"},
        key=identify_request(line),
        draws=_parse_draws(candidates),
    )


def _parse_draws(candidates: list[dict[str, Any]]) -> dict[LoggedDeployment, LoggedDraw] | None:
    """Return each candidate's part of the draw; None where none was made."""
    found = {}
    for one in candidates:
        if "propensity" not in one:
            return None
        propensity = _parse_real(one["propensity"], "propensity")
        accuracy = _parse_real(one.get("accuracy"), "accuracy")
        if propensity is None or accuracy is None or max(propensity, accuracy) > 1.0 + 1e-9:
            raise BadLine("its propensities are not shares")
        found[_parse_deployment(one)] = LoggedDraw(propensity, accuracy)
    return found


def _parse_decision(line: Mapping[str, Any], *, pinned: bool) -> dict[str, Any]:
    """Return a line's decision where it is one to replay."""
    if "feedback" in line and "decision" not in line:
        raise LeftOut("a judgement, not a request")
    if "decision" not in line:
        raise BadLine("no decision in it")
    decision, code = line["decision"], line.get("code")
    if decision is None or not isinstance(code, int):
        raise LeftOut("refused before a decision")
    if not isinstance(decision, dict):
        raise BadLine("its decision is not an object")
    if code >= _FAILED and code != _GONE:
        raise LeftOut(f"failed with status {code}")
    if line.get("kind") == "embeddings":
        raise LeftOut("asked for embeddings")
    if decision.get("policy") not in (NO_POLICY, *POLICIES):
        raise BadLine("its policy is not known here")
    if decision["policy"] == NO_POLICY and not pinned:
        raise LeftOut(PINNED)
    return decision


def _parse_answered(line: Mapping[str, Any]) -> LoggedDeployment:
    if not line.get("model"):
        raise LeftOut("its client left before an answer")
    return _parse_deployment(line)


def _parse_deployment(one: Mapping[str, Any]) -> LoggedDeployment:
    model = one.get("model")
    if not isinstance(model, str) or not model:
        raise BadLine("a model without a name")
    return LoggedDeployment(model, str(one.get("deployment") or model))


def _tokens(candidates: list[dict[str, Any]]) -> dict[LoggedDeployment, LoggedTokens] | None:
    """Return each candidate's own tokens; None where the log has none (it is an older one's)."""
    found = {}
    for one in candidates:
        tokens = _get_dict(one, "tokens")
        count = _parse_count(tokens.get("input"), "tokens.input")
        mu, sigma = tokens.get("mu"), tokens.get("sigma")
        if not count or not isinstance(mu, int | float) or not isinstance(sigma, int | float):
            return None
        if not (isfinite(mu) and isfinite(sigma) and sigma > 0.0):
            raise BadLine("its lengths are not lengths")
        source = str(tokens.get("source"))
        found[_parse_deployment(one)] = LoggedTokens(count, float(mu), float(sigma), source)
    return found


def _get_list(of: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = of.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadLine(f"its {name} are not a list of objects")
    return found


def _get_dict(of: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name) or {}
    if not isinstance(found, dict):
        raise BadLine(f"its {name} is not an object")
    return found


def _parse_weights(decision: Mapping[str, Any]) -> MetricWeights:
    given = _get_dict(decision, "weights")
    try:
        return MetricWeights.from_values(**{name: float(value) for name, value in given.items()})
    except (TypeError, ValueError):
        raise BadLine("its weights are not weights") from None


def _parse_count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TOKEN_COUNT:
        raise BadLine(f"{name} is not a count")
    return value


def _parse_real(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not isfinite(value) or value < 0.0:
        raise BadLine(f"{name} is not a number of 0 or more")
    return float(value)
