"""Decision logs to replay, as the gateway writes them, and the command that replays them."""

import json

import msgspec
from typer.testing import CliRunner

from calibration.cli import app
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decide import DeploymentOption, RoutingCandidate, make_decision
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures
from tests.unit.gateway.telemetry.request_records import make_record

CONTEXT = {"phi-3-mini": 4096, "mistral-7b": 8192, "falcon-7b": 2048}
OWN = MetricWeights.from_values(0.5, 0.3, 0.2)


def options(of):
    return [
        DeploymentOption(
            name,
            name,
            entry.accuracy.default,
            entry.seconds.to_cost_function(CostQuantity.SECONDS),
            entry.joules.to_cost_function(CostQuantity.JOULES),
            CONTEXT[name],
            output=entry.to_output_model(),
            ratio=entry.tokens.ratio,
        )
        for name, entry in of.models.items()
    ]


def line(of, number=0, tokens_in=100, tokens_out=60, weights=OWN, asked=None, **other):
    """One line of the decision log, as the gateway writes it."""
    decision = make_decision(
        RequestFeatures(tokens_in, asked),
        [RoutingCandidate(option) for option in options(of)],
        weights,
        profile_version=of.version,
        label=other.pop("policy", None),
    )
    model = decision.best_candidate.model
    fields = {
        "id": f"r{number}",
        "at": 1.0,
        "kind": "chat",
        "requested": "auto",
        "preset": "default",
        "stream": False,
        "model": model,
        "deployment": model,
        "backend": "http://b",
        "code": 200,
        "decision": decision,
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "seconds": 2.0,
        "joules": 300.0,
        "method": "exclusive",
        **other,
    }
    return make_record(**fields).to_dict()


def write(path, lines):
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))
    return path


def call(*arguments):
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def report(*arguments):
    code, text, complaint = call(*arguments, "--json")
    assert code == 0, complaint
    return json.loads(text)


def plan(found, name):
    return next(one for one in found["profiles"][0]["plans"] if one["name"] == name)


def saving(found, name, against):
    pairs = found["profiles"][0]["savings"]
    return next(one for one in pairs if (one["plan"], one["against"]) == (name, against))


def random_log(path, of, rng, size=120):
    """A log of requests of all lengths and weights, two thirds of them with a limit."""
    return write(
        path,
        [
            line(
                of,
                at,
                int(rng.integers(10, 1500)),
                int(rng.integers(5, 400)),
                MetricWeights.from_values(*rng.random(3).tolist()),
                asked=int(rng.integers(5, 900)) if at % 3 else None,
            )
            for at in range(size)
        ],
    )
