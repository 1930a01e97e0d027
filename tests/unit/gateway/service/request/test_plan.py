"""From a decoded request to a decision, and the error where nobody is left."""

import json
import math
import random

import msgspec
import pytest

from backends.registry import Backend, Deployment
from gateway.config import LogConfig, parse_config
from gateway.experiment_config import BaselineConfig
from gateway.profile import CostProfile, WordsRegression
from gateway.scheduling.decision import ExcludedCandidate, MetricWeights, RoutingDecision
from gateway.scheduling.text_features import BUCKETS, SHAPES, extract_text_features
from gateway.service.client.errors import (
    BackendsUnavailable,
    ContextExceeded,
    NoFeasibleModel,
    UnsupportedCapability,
)
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.plan import make_plan, no_candidate_error
from gateway.service.request.routing_table import ModelNames, RoutingSnapshot

CONFIG = parse_config(
    """
models:
  - {name: phi-3-mini, context: 4096, backends: [{url: "http://a:1"}]}
  - {name: mistral-7b, context: 32768, capabilities: [chat, tools], backends: [{url: "http://b:1"}]}
  - {name: falcon-7b, context: 2048, backends: [{url: "http://c:1"}]}
""",
    "g.yaml",
    {},
)


def make_snapshot(profile):
    rng = random.Random(0)
    deployments = [
        Deployment(m.name, m.deployment_label, m.name, [Backend(m.backends[0].root_url)], rng=rng)
        for m in CONFIG.models
    ]
    return RoutingSnapshot(CONFIG, deployments, profile)


@pytest.fixture
def snapshot(shipped):
    return make_snapshot(shipped)


@pytest.fixture
def decided(snapshot, counter):
    def make(body, headers=None, kind=EndpointKind.CHAT, snapshot=snapshot):
        ask = parse_request(kind, decode_members(json.dumps(body).encode()))
        return make_plan(
            ask, ModelNames(CONFIG).resolve_name(ask.model), headers or {}, snapshot, counter
        )

    return make


def chat(model="auto", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}


def test_auto_is_ranked_by_the_configs_weights(decided, shipped):
    decision = decided(chat()).decision
    assert decision.weights == MetricWeights.from_values(0.5, 0.3, 0.2)
    assert decision.policy == "relative"
    assert decision.profile_version == shipped.version
    assert len(decision.candidates) == 3
    assert decision.excluded == ()


@pytest.mark.parametrize(
    ("headers", "model"),
    [
        ({b"x-joulegate-weight-accuracy": b"1"}, "mistral-7b"),
        ({b"x-joulegate-weight-energy": b"1"}, "phi-3-mini"),
        ({b"x-joulegate-weight-time": b"1"}, "phi-3-mini"),
    ],
)
def test_headers_beat_the_body_beats_the_preset(decided, headers, model):
    other = "accuracy" if model == "phi-3-mini" else "energy"
    assert decided(chat(f"auto:{other}"), headers).decision.best_candidate.model == model
    steered = chat(joulegate={"weights": {other: 1}})
    assert decided(steered, headers).decision.best_candidate.model == model
    unsteered = decided(steered).decision.best_candidate.model
    assert unsteered == ("mistral-7b" if other == "accuracy" else "phi-3-mini")


def test_a_concrete_name_bypasses_the_policy(decided):
    made = decided(chat("falcon-7b"), {b"x-joulegate-weight-energy": b"1"})
    assert [scored.model for scored in made.decision.candidates] == ["falcon-7b"]
    assert made.decision.policy == "none"


def test_a_concrete_name_is_not_second_guessed(decided):
    # Tools the model does not offer, more output than its context: its own server answers that.
    decision = decided(chat("falcon-7b", tools=[{"type": "function"}], max_tokens=9999)).decision
    assert decision.best_candidate.model == "falcon-7b"


def test_an_endpoint_that_a_concrete_model_does_not_serve(decided):
    made = decided({"model": "mistral-7b", "input": "x"}, kind=EndpointKind.EMBEDDINGS)
    assert made.decision.candidates == ()
    error = no_candidate_error(made.decision)
    assert isinstance(error, UnsupportedCapability)
    assert (error.status, error.param, error.code) == (400, "model", "unsupported_capability")


def test_auto_is_kept_to_those_that_can(decided):
    decision = decided(chat(tools=[{"type": "function"}])).decision
    assert [scored.model for scored in decision.candidates] == ["mistral-7b"]
    assert {out.model: out.code for out in decision.excluded} == {
        "phi-3-mini": "capability",
        "falcon-7b": "capability",
    }
    # A large limit alone shuts nobody out; an answer that has to be long does.
    assert decided(chat(max_tokens=3000)).decision.excluded == ()
    long = decided(chat(max_tokens=3000, min_tokens=2500)).decision
    assert [out.model for out in long.excluded] == ["falcon-7b"]


def test_reject_leaves_nobody_and_best_effort_somebody(decided):
    bound = {b"x-joulegate-max-energy-joules": b"0.5"}
    assert decided(chat(), bound).decision.best_candidate.model == "phi-3-mini"
    made = decided(chat(), {**bound, b"x-joulegate-infeasible": b"reject"})
    error = no_candidate_error(made.decision)
    assert isinstance(error, NoFeasibleModel)
    assert (error.status, error.code) == (422, "no_feasible_model")
    assert "max_energy_joules" in error.message


def test_the_snapshot_is_kept(decided, snapshot):
    assert decided(chat()).snapshot is snapshot


def test_explain_is_the_decisions_public_shape(decided):
    made = decided(chat())
    shown = msgspec.json.decode(made.explain_decision("req_7"))
    assert shown["id"] == "req_7"
    assert shown["decision_us"] == round(made.seconds * 1e6, 1) > 0
    assert shown == json.loads(
        json.dumps(made.decision.to_dict(request_id="req_7", decision_us=shown["decision_us"]))
    )


def excluded(*codes):
    out = tuple(
        ExcludedCandidate("m", f"d{n}", code, f"{code}: why") for n, code in enumerate(codes)
    )
    return RoutingDecision("fair-ols", MetricWeights(1, 0, 0), (), out, False, "v")


@pytest.mark.parametrize(
    ("codes", "kind", "status"),
    [
        (["capability"], UnsupportedCapability, 400),
        (["capability", "context"], ContextExceeded, 400),
        (["context", "down"], BackendsUnavailable, 503),
        (["down"], BackendsUnavailable, 503),
        (["bound", "down", "context", "capability"], NoFeasibleModel, 422),
        ([], UnsupportedCapability, 400),
    ],
)
def test_the_error_for_nobody_is_the_most_hopeful_one(codes, kind, status):
    error = no_candidate_error(excluded(*codes))
    assert type(error) is kind
    assert error.status == status
    for number, code in enumerate(codes):
        assert f"d{number}: {code}: why" in error.message
    assert (error.retry_after_seconds == 1) is (status == 503)


def test_a_baseline_of_another_policy_gives_way_to_the_client(snapshot, counter):
    ask = parse_request(EndpointKind.CHAT, decode_members(json.dumps(chat()).encode()))
    target = ModelNames(CONFIG).resolve_name(ask.model)
    due = BaselineConfig(policy="hybrid")
    assert make_plan(ask, target, {}, snapshot, counter, baseline=due).decision.policy == "hybrid"
    headers = {b"x-joulegate-policy": b"fair-ols"}
    assert (
        make_plan(ask, target, headers, snapshot, counter, baseline=due).decision.policy
        == "fair-ols"
    )


def test_a_baseline_of_one_model_puts_it_first_and_keeps_the_others(snapshot, counter):
    ask = parse_request(EndpointKind.CHAT, decode_members(json.dumps(chat()).encode()))
    target = ModelNames(CONFIG).resolve_name(ask.model)
    usual = make_plan(ask, target, {}, snapshot, counter).decision
    for model in ("phi-3-mini", "mistral-7b", "falcon-7b"):
        found = make_plan(
            ask, target, {}, snapshot, counter, baseline=BaselineConfig(model=model)
        ).decision
        assert found.best_candidate.model == model
        assert set(found.candidates) == set(usual.candidates)
    lacking = chat(tools=[{"type": "function", "function": {"name": "f"}}])
    ask = parse_request(EndpointKind.CHAT, decode_members(json.dumps(lacking).encode()))
    found = make_plan(
        ask, target, {}, snapshot, counter, baseline=BaselineConfig(model="falcon-7b")
    ).decision
    assert found.best_candidate.model == "mistral-7b"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (chat(tools=[{"type": "function"}]), "--tool-call-parser"),
        (chat(logprobs=True, tools=[{"type": "function"}]), "--enable-auto-tool-choice"),
        (
            {"model": "auto", "messages": [{"role": "tool", "content": "42"}]},
            "models[].capabilities",
        ),
    ],
)
def test_a_lacking_capability_names_the_key_and_vllms_flags(decided, body, said):
    decision = decided(body).decision
    without = decision._replace(
        candidates=(), excluded=tuple(o for o in decision.excluded if o.code != "down")
    )
    error = no_candidate_error(without)
    assert isinstance(error, UnsupportedCapability)
    assert said in error.message
    assert "tools" in error.message


def test_a_prompt_that_is_cut_to_the_context_fits_everywhere(decided):
    long = "word " * 30_000
    body = chat() | {"messages": [{"role": "user", "content": long}]}
    assert {out.code for out in decided(body).decision.excluded} == {"context"}
    for kept in (-1, "-1", 64):
        decision = decided(body | {"truncate_prompt_tokens": kept}).decision
        assert decision.excluded == ()
        assert all(0 < scored.tokens_in < 32_768 for scored in decision.candidates)


@pytest.mark.parametrize(
    "odd",
    [
        {"max_tokens": 10, "min_tokens": 100},
        {"n": 10**30},
        {"n": 10**6, "max_tokens": 1},
        {"max_tokens": 10**400},
        {"ignore_eos": "true", "max_tokens": "20"},
    ],
)
def test_odd_numbers_are_predicted_all_the_same(decided, odd):
    for scored in decided(chat(**odd)).decision.candidates:
        assert 0.0 < scored.predicted_seconds < math.inf
        assert 0.0 < scored.predicted_joules < math.inf


@pytest.mark.parametrize("trained", [False, True])
def test_the_log_gets_all_of_a_prompts_features_whatever_the_decision_read(
    decided, shipped, trained
):
    words = WordsRegression(4.0, 0.5, [0.0] * BUCKETS, [(0.0, 0.0, 1.0)] * len(SHAPES))
    lengths = {"phi-3-mini": words} if trained else {}
    plan = decided(chat(), snapshot=make_snapshot(CostProfile(shipped.models, "v", lengths)))
    found = extract_text_features("Hello")
    assert (plan.prompt is not None) is trained
    assert plan.describe_text(LogConfig(features=True)) == {
        "features": {"words": found.words, "form": found.form}
    }


@pytest.mark.parametrize("said", ["Hello", "She said: no.\n" * 8_000])
def test_the_log_gets_all_of_a_prompt_however_little_of_it_was_decoded(decided, said):
    parts = [{"type": "text", "text": "Read this."}, {"type": "text", "text": said}]
    for content, whole in ((said, said), (parts, f"Read this.\n{said}")):
        plan = decided(chat(messages=[{"role": "user", "content": content}]))
        found = extract_text_features(whole)
        assert plan.describe_text(LogConfig(prompts=True)) == {"prompt": whole}
        shown = plan.describe_text(LogConfig(features=True))["features"]
        assert shown["words"] == tuple(sorted(found.words))
