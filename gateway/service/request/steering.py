"""The steering of one request: weights, policy and bounds.

Strongest first: headers, the body's `joulegate` object, the preset in the model's name, the
config. Each of weights, policy, every single bound, infeasible, explain, impact and affinity is
looked up that way by itself; weights are taken as a set, never mixed from two places.
"""

import difflib
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from backends.sse import UNREADABLE
from gateway.scheduling.decide import POLICIES
from gateway.scheduling.decision import NO_BOUNDS, MetricWeights, PredictionBounds
from gateway.service.client import headers as names
from gateway.service.client.errors import BadRequest

HEADER_PREFIX = b"x-joulegate-"

_NUMBER = re.compile(rb"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WEIGHTS = {
    names.WEIGHT_ACCURACY: "accuracy",
    names.WEIGHT_ENERGY: "energy",
    names.WEIGHT_TIME: "time",
}
_BOUNDS = {
    names.MAX_LATENCY_MS: "max_latency_ms",
    names.MAX_ENERGY_JOULES: "max_energy_joules",
    names.MIN_ACCURACY: "min_accuracy",
    names.BOUND_QUANTILE: "quantile",
    names.ACCURACY_WITHIN: "accuracy_within",
}
_ACCURACIES = ("min-accuracy", "min_accuracy", "accuracy-within", "accuracy_within")
_LEAST_QUANTILE, _MOST_QUANTILE = 0.5, 0.99
_FLAG = {b"true": True, b"false": False, b"1": True, b"0": False}
_CHOICES = {
    names.INFEASIBLE: {b"best-effort": False, b"reject": True},
    names.EXPLAIN: _FLAG,
    names.IMPACT: _FLAG,
    names.AFFINITY: {b"on": True, b"off": False},
}


class RequestSteering(NamedTuple):
    """One request's steering, every default filled in."""

    weights: MetricWeights
    policy: str
    bounds: PredictionBounds = NO_BOUNDS
    reject: bool = False
    explain: bool = False
    impact: bool = False
    affinity: bool = True


class WeightsMember(Struct, forbid_unknown_fields=True):
    """`joulegate.weights` in a body."""

    accuracy: float = 0.0
    energy: float = 0.0
    time: float = 0.0


class BoundsMember(Struct, forbid_unknown_fields=True):
    """`joulegate.bounds` in a body."""

    max_latency_ms: float | None = None
    max_energy_joules: float | None = None
    min_accuracy: float | None = None
    accuracy_within: float | None = None
    quantile: float | None = None


class SteeringMember(Struct, forbid_unknown_fields=True):
    """The `joulegate` object in a body; it never reaches a backend."""

    weights: WeightsMember | None = None
    policy: str | None = None
    bounds: BoundsMember | None = None
    infeasible: Literal["best-effort", "reject"] | None = None
    explain: bool | None = None
    impact: bool | None = None
    affinity: Literal["on", "off"] | None = None


_member = msgspec.json.Decoder(SteeringMember)


def resolve_steering(
    headers: Mapping[bytes, bytes], member: msgspec.Raw | None, default: RequestSteering
) -> RequestSteering:
    """Apply a body's `joulegate` object and then the headers to `default`.

    `headers` holds the x-joulegate-* headers only. Raises BadRequest naming header or member.
    """
    if member is not None and bytes(member) != b"null":
        default = _from_member(member, default)
    return _from_headers(headers, default) if headers else default


def _from_member(raw: msgspec.Raw, default: RequestSteering) -> RequestSteering:
    try:
        member = _member.decode(raw)
    except UNREADABLE as error:
        text = str(error).replace("`$", "`joulegate")
        raise BadRequest(f"joulegate: {text}", param="joulegate") from None
    weights, policy, bounds, reject, explain, impact, affinity = default
    if member.weights is not None:
        found = member.weights
        weights = _make_weights((found.accuracy, found.energy, found.time), "joulegate.weights")
    if member.policy is not None:
        policy = _check_policy(member.policy, "joulegate.policy")
    if member.bounds is not None:
        given = {
            name: _check_bound(value, f"joulegate.bounds.{name}")
            for name in _BOUNDS.values()
            if (value := getattr(member.bounds, name)) is not None
        }
        bounds = _merge_bounds(bounds, given)
    if member.infeasible is not None:
        reject = member.infeasible == "reject"
    if member.explain is not None:
        explain = member.explain
    if member.impact is not None:
        impact = member.impact
    if member.affinity is not None:
        affinity = member.affinity == "on"
    return RequestSteering(weights, policy, bounds, reject, explain, impact, affinity)


def _from_headers(headers: Mapping[bytes, bytes], default: RequestSteering) -> RequestSteering:
    weights, policy, bounds, reject, explain, impact, affinity = default
    found = _parse_headers(tuple(headers.items()))
    chosen = found.chosen
    return RequestSteering(
        weights if found.weights is None else found.weights,
        policy if found.policy is None else found.policy,
        _merge_bounds(bounds, found.bounds),
        chosen.get(names.INFEASIBLE, reject),
        chosen.get(names.EXPLAIN, explain),
        chosen.get(names.IMPACT, impact),
        chosen.get(names.AFFINITY, affinity),
    )


class _GivenHeaders(NamedTuple):
    """What a request's headers say; None: nothing."""

    weights: MetricWeights | None
    policy: str | None
    bounds: Mapping[str, float]
    chosen: Mapping[str, bool]


# A client sends the same ones with every request.
@lru_cache(maxsize=64)
def _parse_headers(headers: tuple[tuple[bytes, bytes], ...]) -> _GivenHeaders:
    weights: MetricWeights | None = None
    policy: str | None = None
    given_weights: dict[str, float] = {}
    given_bounds: dict[str, float] = {}
    chosen: dict[str, bool] = {}
    for raw_name, value in headers:
        name = raw_name.decode("latin-1")
        if name in _WEIGHTS:
            given_weights[name] = _parse_number(name, value)
        elif name in _BOUNDS:
            given_bounds[_BOUNDS[name]] = _check_bound(_parse_number(name, value), name)
        elif name == names.POLICY:
            policy = _check_policy(value.decode("latin-1"), name)
        elif name in _CHOICES:
            chosen[name] = _parse_choice(name, value)
        elif (error := find_header_error(name)) is not None:
            raise error
    if given_weights:
        triple = (
            given_weights.get(names.WEIGHT_ACCURACY, 0.0),
            given_weights.get(names.WEIGHT_ENERGY, 0.0),
            given_weights.get(names.WEIGHT_TIME, 0.0),
        )
        weights = _make_weights(triple, next(iter(given_weights)))
    return _GivenHeaders(weights, policy, given_bounds, chosen)


def find_header_error(name: str) -> BadRequest | None:
    """Return the error for a header that nothing is known of: a typo would steer nothing."""
    if name in names.REQUEST:
        return None
    prefix = HEADER_PREFIX.decode()
    known = [known.removeprefix(prefix) for known in names.REQUEST if known.startswith(prefix)]
    close = difflib.get_close_matches(name.removeprefix(prefix), known, n=1)
    hint = f"did you mean {prefix}{close[0]}?" if close else f"known: {', '.join(known)}"
    return BadRequest(f"{name[:80]}: there is no such header ({hint})", param=name[:80])


def _parse_choice(name: str, value: bytes) -> bool:
    choices = _CHOICES[name]
    found = choices.get(value.lower())
    if found is None:
        known = " or ".join(word.decode() for word in choices if not word.isdigit())
        raise BadRequest(f"{name}: must be {known}", param=name)
    return found


def _parse_number(name: str, value: bytes) -> float:
    """Parse a header's non-negative decimal number; float() alone takes nan, 1_000 and ٣."""
    if not _NUMBER.fullmatch(value):
        shown = value.decode("latin-1")[:40]
        raise BadRequest(f"{name}: {shown!r} is not a non-negative decimal number", param=name)
    number = float(value)
    if not math.isfinite(number):
        raise BadRequest(f"{name}: is too large", param=name)
    return number


def _make_weights(triple: tuple[float, float, float], param: str) -> MetricWeights:
    try:
        return MetricWeights.from_values(*triple)
    except ValueError as error:
        raise BadRequest(f"{param}: {error}", param=param) from None


def _check_policy(name: str, param: str) -> str:
    if name not in POLICIES:
        known = ", ".join(POLICIES)
        raise BadRequest(f"{param}: {name[:40]!r} is not one of {known}", param=param)
    return name


def _check_bound(value: float, param: str) -> float:
    if not (math.isfinite(value) and value >= 0.0):
        raise BadRequest(f"{param}: must be finite and not negative", param=param)
    if param.endswith("quantile") and not _LEAST_QUANTILE <= value <= _MOST_QUANTILE:
        raise BadRequest(f"{param}: is a share, from 0.5 to 0.99", param=param)
    if value > 1.0 and param.endswith(_ACCURACIES):
        raise BadRequest(f"{param}: is a share, from 0 to 1", param=param)
    return value


def _merge_bounds(bounds: PredictionBounds, given: Mapping[str, float]) -> PredictionBounds:
    """Return `bounds` with those given in their place."""
    if not given:
        return bounds
    now = {name: getattr(bounds, name) for name in _BOUNDS.values()}
    if "min_accuracy" in given:
        # Who says how likely it must be wants no other floor: `auto:frugal` brings one.
        now["accuracy_within"] = None
    return PredictionBounds(**{**now, **given})
