"""Steering: headers over the body's object over the default, and only plain decimal numbers."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.scheduling.decision import NO_BOUNDS, MetricWeights, PredictionBounds
from gateway.service.client import headers as names
from gateway.service.client.errors import BadRequest
from gateway.service.request.steering import RequestSteering, resolve_steering

DEFAULT = RequestSteering(MetricWeights.from_values(0.5, 0.3, 0.2), "fair-ols")
NUMBERS = (
    names.WEIGHT_ACCURACY,
    names.WEIGHT_ENERGY,
    names.WEIGHT_TIME,
    names.MAX_LATENCY_MS,
    names.MAX_ENERGY_JOULES,
    names.MIN_ACCURACY,
)


def by_headers(default=DEFAULT, **values):
    headers = {
        f"x-joulegate-{name.replace('_', '-')}".encode(): value.encode()
        for name, value in values.items()
    }
    return resolve_steering(headers, None, default)


def by_body(value, default=DEFAULT, headers=None):
    raw = value if isinstance(value, str) else json.dumps(value)
    return resolve_steering(headers or {}, msgspec.Raw(raw.encode()), default)


def test_nothing_asked_is_the_default():
    assert resolve_steering({}, None, DEFAULT) is DEFAULT
    assert by_body({}) == DEFAULT
    assert DEFAULT[2:] == (NO_BOUNDS, False, False, False, True)


def test_the_weights_given_are_used_and_the_missing_count_zero():
    assert by_headers(weight_energy="1").weights == MetricWeights(0.0, 1.0, 0.0)
    assert by_headers(weight_accuracy="3", weight_time="1").weights == MetricWeights(
        0.75, 0.0, 0.25
    )
    assert by_headers(weight_accuracy="0.7", weight_energy="0.2", weight_time="0.1") == (
        DEFAULT._replace(weights=MetricWeights.from_values(0.7, 0.2, 0.1))
    )
    assert by_body({"weights": {"time": 2}}).weights == MetricWeights(0.0, 0.0, 1.0)


def test_every_other_header():
    steered = by_headers(
        policy="hybrid",
        max_latency_ms="1500",
        max_energy_joules="2e2",
        min_accuracy=".7",
        infeasible="reject",
        explain="true",
    )
    bounds = PredictionBounds(max_latency_ms=1500.0, max_energy_joules=200.0, min_accuracy=0.7)
    assert steered == RequestSteering(DEFAULT.weights, "hybrid", bounds, reject=True, explain=True)


def test_the_bodys_object_says_the_same():
    steered = by_body(
        {
            "weights": {"accuracy": 1, "energy": 1, "time": 2},
            "policy": "hybrid",
            "bounds": {"max_latency_ms": 1500, "max_energy_joules": 200, "min_accuracy": 0.7},
            "infeasible": "reject",
            "explain": True,
        }
    )
    bounds = PredictionBounds(max_latency_ms=1500.0, max_energy_joules=200.0, min_accuracy=0.7)
    assert steered == RequestSteering(MetricWeights(0.25, 0.25, 0.5), "hybrid", bounds, True, True)


def test_headers_are_stronger_than_the_body_each_by_itself():
    body = {
        "weights": {"accuracy": 1},
        "policy": "hybrid",
        "bounds": {"max_latency_ms": 1, "min_accuracy": 0.1},
        "infeasible": "reject",
        "explain": True,
    }
    headers = {
        b"x-joulegate-weight-energy": b"1",
        b"x-joulegate-max-latency-ms": b"9",
        b"x-joulegate-infeasible": b"best-effort",
        b"x-joulegate-explain": b"false",
    }
    steered = by_body(body, headers=headers)
    # Weights are a set: the body's accuracy does not leak into the header's energy.
    assert steered.weights == MetricWeights(0.0, 1.0, 0.0)
    assert steered.bounds == PredictionBounds(max_latency_ms=9.0, min_accuracy=0.1)
    assert (steered.policy, steered.reject, steered.explain) == ("hybrid", False, False)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("true", True), ("TRUE", True), ("1", True), ("false", False), ("0", False)],
)
def test_explain(word, wanted):
    assert by_headers(explain=word).explain is wanted
    assert by_headers(impact=word).impact is wanted


def test_impact_is_steered_like_explain():
    assert by_body({"impact": True}).impact is True
    assert by_body({"impact": True}, headers={b"x-joulegate-impact": b"0"}).impact is False
    assert by_body({}).impact is False


def is_decimal(text):
    """Digits with at most one point and at least one digit; an exponent may follow. ASCII only."""

    def digits(part):
        return part != "" and all(character in "0123456789" for character in part)

    mantissa, *exponent = text.replace("E", "e").split("e")
    if len(exponent) > 1:
        return False
    if exponent and not digits(exponent[0][1:] if exponent[0][:1] in "+-" else exponent[0]):
        return False
    whole, *fraction = mantissa.split(".")
    return len(fraction) < 2 and digits(whole + "".join(fraction))


written = st.text("0123456789..eE+-_ \u0663\uff11", max_size=8) | st.from_regex(
    r"[0-9]{0,3}\.?[0-9]{0,3}([eE][+-]?[0-9]{0,2})?", fullmatch=True
)


@given(written, st.sampled_from(NUMBERS))
@settings(max_examples=400)
def test_the_numbers_accepted_are_exactly_the_decimals(text, name):
    # A weight of 0 alone would be refused for another reason.
    other = names.WEIGHT_TIME if name == names.WEIGHT_ENERGY else names.WEIGHT_ENERGY
    headers = {name.encode(): text.encode(), other.encode(): b"1"}
    sane = is_decimal(text) and float(text) != float("inf")
    # An accuracy is a share.
    if sane and (name != names.MIN_ACCURACY or float(text) <= 1.0):
        steered = resolve_steering(headers, None, DEFAULT)
        if name == names.MAX_LATENCY_MS:
            assert steered.bounds.max_latency_ms == float(text)
        return
    with pytest.raises(BadRequest) as caught:
        resolve_steering(headers, None, DEFAULT)
    assert caught.value.param == name
    assert name in caught.value.message


@pytest.mark.parametrize(
    "bad",
    ["", "nan", "NaN", "inf", "-inf", "infinity", "-1", "-0", "+1", "1_000", "٣", "１", "0x10",
     "1,5", "1e", "e1", ".", "1.2.3", "1 2", "1e999", "0.5;q=1", "9" * 400],
)  # fmt: skip
@pytest.mark.parametrize("name", NUMBERS)
def test_a_bad_number_is_a_400_that_names_the_header(bad, name):
    with pytest.raises(BadRequest) as caught:
        resolve_steering({name.encode(): bad.encode()}, None, DEFAULT)
    assert (caught.value.status, caught.value.param) == (400, name)
    assert caught.value.message.startswith(f"{name}: ")


def test_weights_of_nothing_are_a_400_that_names_a_header():
    with pytest.raises(BadRequest, match=r"x-joulegate-weight-energy: .*not all be zero"):
        by_headers(weight_energy="0")
    with pytest.raises(BadRequest, match="x-joulegate-weight-"):
        by_headers(weight_accuracy="0", weight_energy="0.0", weight_time="1e-999")


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"policy": "round-robin"}, names.POLICY),
        ({"policy": ""}, names.POLICY),
        ({"infeasible": "maybe"}, names.INFEASIBLE),
        ({"explain": "yes"}, names.EXPLAIN),
        ({"impact": "2"}, names.IMPACT),
    ],
)
def test_a_bad_word_is_a_400_that_names_the_header(values, param):
    with pytest.raises(BadRequest) as caught:
        by_headers(**values)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "joulegate: "),
        ("text", "joulegate: "),
        ({"weight": {}}, "unknown field `weight`"),
        ({"weights": {"speed": 1}}, "unknown field `speed` - at `joulegate.weights`"),
        ({"weights": {"energy": "1"}}, "at `joulegate.weights.energy`"),
        ({"weights": {"energy": -1}}, "joulegate.weights: "),
        ({"weights": {}}, "joulegate.weights: weights must not all be zero"),
        ({"policy": "x"}, "joulegate.policy: 'x' is not one of relative, fair-ols, hybrid"),
        ({"bounds": {"max_latency_ms": -1}}, "joulegate.bounds.max_latency_ms: "),
        ({"bounds": {"latency": 1}}, "unknown field `latency`"),
        ({"infeasible": "maybe"}, "at `joulegate.infeasible`"),
        ({"explain": 1}, "at `joulegate.explain`"),
        ('{"weights":{"energy":1e999}}', "joulegate"),
        ('{"bounds":{"min_accuracy":NaN}}', "joulegate"),
    ],
)
def test_a_bad_object_is_a_400_that_says_where(value, said):
    raw = '"text"' if value == "text" else value
    with pytest.raises(BadRequest) as caught:
        by_body(raw)
    assert caught.value.status == 400
    assert said in caught.value.message
    assert caught.value.param.startswith("joulegate")


def test_bounds_left_open_stay_open():
    default = DEFAULT._replace(bounds=PredictionBounds(min_accuracy=0.6))
    assert by_headers(default, policy="hybrid").bounds is default.bounds
    assert by_headers(default, max_latency_ms="5").bounds == PredictionBounds(5.0, None, 0.6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x-joulegate-weight-enrgy", "did you mean x-joulegate-weight-energy?"),
        ("x-joulegate-weights-accuracy", "did you mean x-joulegate-weight-accuracy?"),
        ("x-joulegate-max-latency", "did you mean x-joulegate-max-latency-ms?"),
        ("x-joulegate-max_energy_joules", "did you mean x-joulegate-max-energy-joules?"),
        ("x-joulegate-explan", "did you mean x-joulegate-explain?"),
        ("x-joulegate-", "known: weight-accuracy, weight-energy, "),
        ("x-joulegate-zzz", "known: weight-accuracy, weight-energy, "),
    ],
)
def test_an_unknown_header_is_refused_with_a_suggestion(name, said):
    with pytest.raises(BadRequest) as caught:
        resolve_steering({name.encode(): b"1"}, None, DEFAULT)
    assert f"{name}: there is no such header ({said}" in str(caught.value)
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("headers", "member", "affinity"),
    [
        ({b"x-joulegate-affinity": b"off"}, None, False),
        ({b"x-joulegate-affinity": b"ON"}, msgspec.Raw(b'{"affinity":"off"}'), True),
        ({}, msgspec.Raw(b'{"affinity":"off"}'), False),
        ({}, msgspec.Raw(b'{"affinity":null}'), True),
    ],
)
def test_affinity_is_on_unless_somebody_says_off(headers, member, affinity):
    found = resolve_steering(headers, member, DEFAULT)
    assert found == DEFAULT._replace(affinity=affinity)


def test_affinity_has_two_values():
    with pytest.raises(BadRequest, match=r"x-joulegate-affinity: must be on or off"):
        resolve_steering({b"x-joulegate-affinity": b"true"}, None, DEFAULT)


def test_the_same_headers_move_each_default_by_themselves():
    other = RequestSteering(MetricWeights.from_values(0, 0, 1), "hybrid", explain=True)
    for _ in range(2):  # read the first time, known the second
        assert by_headers(max_latency_ms="7") == DEFAULT._replace(
            bounds=PredictionBounds(max_latency_ms=7.0)
        )
        assert by_headers(default=other, max_latency_ms="7") == other._replace(
            bounds=PredictionBounds(max_latency_ms=7.0)
        )
