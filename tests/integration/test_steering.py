"""Weights, policy and explain: where they may stand and which place is strongest."""

import asyncio
import json

import pytest

from gateway.config import PresetConfig, WeightsConfig
from gateway.deciding_config import LearningConfig
from tests.integration.harness import ACCURACY, CHAT, ENERGY

pytestmark = pytest.mark.asyncio(loop_scope="module")
# What these tests ask for must not depend on what earlier ones have taught.
FLEET = {
    "learning": LearningConfig(enabled=False),
    "presets": {
        "eco": PresetConfig(WeightsConfig(energy=1)),
        "time": PresetConfig(WeightsConfig(time=3, accuracy=1)),
    },
    "weights": WeightsConfig(accuracy=2, energy=1, time=1),
}
NUMBERS = (
    "x-joulegate-weight-accuracy",
    "x-joulegate-weight-energy",
    "x-joulegate-weight-time",
    "x-joulegate-max-latency-ms",
    "x-joulegate-max-energy-joules",
    "x-joulegate-min-accuracy",
)

MALFORMED = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "-1",
    "-0",
    "+1",
    "1_000",
    "٣",
    "½",
    "²",
    "１",
    "1,2",
    "1,0",
    "0x10",
    "1e999",
    "1e",
    "1.2.3",
    ".",
    "e5",
    "1a",
    "true",
    '"1"',
    "1;2",
    "1%20",
    "1j",
    "1/2",
    "--1",
    "1e+",
    "1.e",
]


def weights(accuracy=0.0, energy=0.0, time=0.0):
    return {"accuracy": accuracy, "energy": energy, "time": time}


async def decided(gate, body, headers=None):
    got = await gate.ask(CHAT | body, (headers or {}) | {"x-joulegate-explain": "true"})
    assert got.status == 200, got.raw
    return got.json["joulegate"]


@pytest.mark.parametrize(
    ("body", "headers", "wanted"),
    [
        # the config's own, then a preset, then the body, then the headers
        ({}, {}, weights(0.5, 0.25, 0.25)),
        ({"model": "joulegate/auto"}, {}, weights(0.5, 0.25, 0.25)),
        ({"model": "auto:accuracy"}, {}, weights(0.8, 0.1, 0.1)),
        ({"model": "auto:energy"}, {}, weights(0.1, 0.8, 0.1)),
        ({"model": "auto:balanced"}, {}, weights(1 / 3, 1 / 3, 1 / 3)),
        ({"model": "auto:eco"}, {}, weights(energy=1)),
        ({"model": "joulegate/auto:eco"}, {}, weights(energy=1)),
        ({"model": "auto:time"}, {}, weights(accuracy=0.25, time=0.75)),
        ({"joulegate": {"weights": {"time": 5}}}, {}, weights(time=1)),
        (
            {"model": "auto:eco", "joulegate": {"weights": {"accuracy": 3, "time": 1}}},
            {},
            weights(accuracy=0.75, time=0.25),
        ),
        ({"model": "auto:eco", "joulegate": {"weights": {"time": 1}}}, ACCURACY, weights(1)),
        ({"joulegate": {"policy": "hybrid", "weights": {"time": 1}}}, ENERGY, weights(energy=1)),
        # those given are used, the missing count 0
        (
            {},
            {"x-joulegate-weight-accuracy": "0.2", "x-joulegate-weight-time": ".6"},
            weights(accuracy=0.25, time=0.75),
        ),
        ({}, {"X-Joulegate-Weight-Energy": "5e-1"}, weights(energy=1)),
        ({}, ENERGY | {"x-joulegate-weight-time": "0"}, weights(energy=1)),
        ({}, ENERGY | {"x-joulegate-weight-time": "1e308"}, weights(time=1)),
        ({}, {"x-joulegate-weight-time": "1.", "x-joulegate-weight-energy": "3e+0"},
         weights(energy=0.75, time=0.25)),
        ({"joulegate": {}}, {}, weights(0.5, 0.25, 0.25)),
        ({"joulegate": {"weights": None, "policy": None, "bounds": None, "infeasible": None}}, {},
         weights(0.5, 0.25, 0.25)),
    ],
)  # fmt: skip
async def test_the_strongest_place_wins(gate, body, headers, wanted):
    shown = await decided(gate, body, headers)
    assert shown["weights"] == pytest.approx(wanted, abs=1e-12)
    assert sum(shown["weights"].values()) == pytest.approx(1)


async def test_each_item_is_looked_up_by_itself(gate):
    body = {
        "model": "auto:eco",
        "joulegate": {
            "policy": "hybrid",
            "bounds": {"min_accuracy": 0.7, "max_latency_ms": 1e6},
            "explain": False,
        },
    }
    shown = await decided(gate, body, {"x-joulegate-max-latency-ms": "1000000"})
    assert shown["policy"] == "hybrid"
    assert shown["weights"] == weights(energy=1)
    assert [out["model"] for out in shown["excluded"]] == ["phi-3-mini"]
    shown = await decided(gate, body, {"x-joulegate-policy": "fair-ols"})
    assert shown["policy"] == "fair-ols"
    # A header for one bound leaves the body's others; it wins over the body's own.
    shown = await decided(gate, body, {"x-joulegate-min-accuracy": "0.71"})
    assert [out["model"] for out in shown["excluded"]] == ["phi-3-mini", "falcon-7b"]
    off = await gate.ask(CHAT | {"joulegate": {"explain": True}}, {"x-joulegate-explain": "0"})
    assert "joulegate" not in off.json


@pytest.mark.parametrize("policy", ["relative", "fair-ols", "hybrid"])
@pytest.mark.parametrize(
    ("headers", "model"),
    [
        (ENERGY, "phi-3-mini"),
        ({"x-joulegate-weight-time": "1"}, "phi-3-mini"),
        (ACCURACY, "mistral-7b"),
    ],
)
async def test_both_policies_choose_as_expected(gate, policy, headers, model):
    got = await gate.ask(headers=headers | {"x-joulegate-policy": policy})
    assert got.headers["x-joulegate-model"] == model
    assert got.headers["x-joulegate-policy"] == policy
    labels = {"policy": policy, "model": model, "preset": "default"}
    assert await gate.metric("joulegate_decisions_total", **labels) >= 1


async def raw_ask(gate, lines):
    """Send header lines that a client library would refuse to."""
    body = json.dumps(CHAT).encode()
    host, port = gate.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = [b"POST /v1/chat/completions HTTP/1.1", b"host: x", b"connection: close", *lines]
        head.append(b"content-length: %d" % len(body))
        writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("name", NUMBERS)
async def test_a_malformed_number_is_a_400_that_names_the_header(gate, name):
    for value in (*MALFORMED, "", " ", "1 2", "1\t2", "9" * 400):
        line = name.encode() + b": " + value.encode()
        status, body = await raw_ask(gate, [line])
        error = body["error"]
        assert status == 400, (value, body)
        assert error["param"] == name, value
        assert name in error["message"]
        assert error["type"] == "invalid_request_error"
    latin = name.encode() + b": \xb2"
    assert (await raw_ask(gate, [latin]))[0] == 400
    for lines in ([b"1", b"2"], [b"1", b"1"], [b"", b"1"]):
        status, body = await raw_ask(gate, [name.encode() + b": " + value for value in lines])
        assert (status, body["error"]["param"]) == (400, name), lines


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-joulegate-weight-energy": "0"}, "x-joulegate-weight-energy"),
        (dict.fromkeys(NUMBERS[:3], "0.0"), "x-joulegate-weight-accuracy"),
        ({"x-joulegate-policy": "random"}, "x-joulegate-policy"),
        ({"x-joulegate-policy": ""}, "x-joulegate-policy"),
        ({"x-joulegate-policy": "fair_ols"}, "x-joulegate-policy"),
        ({"x-joulegate-infeasible": "maybe"}, "x-joulegate-infeasible"),
        ({"x-joulegate-explain": "perhaps"}, "x-joulegate-explain"),
    ],
)
async def test_other_malformed_headers(gate, headers, param):
    got = await gate.ask(headers=headers)
    assert (got.status, got.json["error"]["param"]) == (400, param)
    assert param in got.json["error"]["message"]


@pytest.mark.parametrize(
    "member",
    [
        [],
        "x",
        1,
        {"weight": {}},
        {"weights": [1, 2, 3]},
        {"weights": {"accuracy": "1"}},
        {"weights": {"accuracy": -1}},
        {"weights": {"accuracy": 0}},
        {"weights": {}},
        {"weights": {"speed": 1}},
        {"weights": {"accuracy": True}},
        {"weights": {"accuracy": None}},
        {"policy": "random"},
        {"policy": 1},
        {"bounds": {"max_latency_ms": -1}},
        {"bounds": {"max_latency_ms": "5"}},
        {"bounds": {"latency": 1}},
        {"infeasible": "maybe"},
        {"explain": "yes"},
    ],
)
async def test_a_malformed_body_member_is_a_400_that_names_it(gate, member):
    got = await gate.ask(CHAT | {"joulegate": member})
    error = got.json["error"]
    assert (got.status, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith("joulegate")
    assert "joulegate" in error["message"]


@pytest.mark.parametrize("text", ["1e999", "NaN", "-1e999", "Infinity", "1e-400"])
async def test_numbers_in_the_body_that_no_float_holds(gate, text):
    body = json.dumps(CHAT | {"joulegate": {"weights": {"energy": 0.5}}}).replace("0.5", text)
    got = await gate.ask(body.encode())
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
