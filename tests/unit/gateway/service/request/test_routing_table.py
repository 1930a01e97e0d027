"""Names, and what they stand for: all deployments or one model's, and which weights."""

import random

import pytest

from backends.registry import Backend, Deployment
from gateway.config import parse_config
from gateway.profile import ProfileError
from gateway.scheduling.decide import make_decision
from gateway.scheduling.decision import PRESETS, MetricWeights
from gateway.scheduling.estimate import estimate_candidate
from gateway.scheduling.features import RequestFeatures
from gateway.service.client.errors import UnknownModel
from gateway.service.request.candidates import list_candidates
from gateway.service.request.deciding import Deciding
from gateway.service.request.routing_table import AUTO, OTHER, ModelNames, RoutingSnapshot

WANTED = RequestFeatures(100)
CONFIG = parse_config(
    """
models:
  - {name: phi-3-mini, context: 4096, backends: [{url: "http://a:1"}, {url: "http://a:2"}]}
  - name: mistral-7b
    context: 32768
    capabilities: [chat, tools]
    backends: [{url: "http://b:1"}]
  - name: mistral-7b
    deployment: mistral-on-l4
    profile: falcon-7b
    context: 8192
    backends: [{url: "http://c:1"}]
policy: hybrid
weights: {accuracy: 1, energy: 1, time: 2}
presets: {eco: {weights: {energy: 1}}, time: {weights: {time: 9, energy: 1}}}
""",
    "g.yaml",
    {},
)


def deployments(config=CONFIG):
    rng = random.Random(0)
    return [
        Deployment(
            m.name, m.deployment_label, m.name, [Backend(b.root_url) for b in m.backends], rng=rng
        )
        for m in config.models
    ]


@pytest.fixture
def snapshot(shipped):
    return RoutingSnapshot(CONFIG, deployments(), shipped)


def test_auto_starts_from_the_config():
    target = ModelNames(CONFIG).resolve_name("auto")
    assert (target.label, target.model, target.preset) == ("auto", None, "default")
    assert target.steering.weights == MetricWeights(0.25, 0.25, 0.5)
    assert target.steering.policy == "hybrid"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("auto:accuracy", (0.8, 0.1, 0.1)),
        ("auto:energy", (0.1, 0.8, 0.1)),
        ("auto:balanced", (1 / 3, 1 / 3, 1 / 3)),
        ("auto:eco", (0.0, 1.0, 0.0)),
        ("auto:time", (0.0, 0.1, 0.9)),  # the config's own is stronger than the built-in
    ],
)
def test_a_preset_fixes_the_weights(name, weights):
    names = ModelNames(CONFIG)
    target = names.resolve_name(name)
    found = target.steering.weights
    assert (found.accuracy, found.energy, found.time) == pytest.approx(weights)
    assert (target.label, target.model) == (name, None)
    assert target.preset == name.removeprefix("auto:")
    assert target.steering.policy == "hybrid"
    assert names.resolve_name(f"joulegate/{name}") == target


def test_the_long_name_of_auto():
    names = ModelNames(CONFIG)
    assert names.resolve_name("joulegate/auto") == names.resolve_name("auto")


def test_a_concrete_name_stays_with_its_model():
    target = ModelNames(CONFIG).resolve_name("mistral-7b")
    assert (target.label, target.model, target.preset) == ("mistral-7b", "mistral-7b", "none")


@pytest.mark.parametrize(
    "name",
    ["nope", " ", "Auto", "auto:", "auto:nope", "joulegate/phi-3-mini", "mistral-on-l4", "other"],
)
def test_any_other_name_is_unknown(name):
    with pytest.raises(UnknownModel) as caught:
        ModelNames(CONFIG).resolve_name(name)
    error = caught.value
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert repr(name) in error.message


def test_a_long_unknown_name_is_not_repeated_whole():
    with pytest.raises(UnknownModel) as caught:
        ModelNames(CONFIG).resolve_name("x" * 100_000)
    assert len(caught.value.message) < 300


def test_the_models_are_listed_once():
    names = ModelNames(CONFIG)
    assert names.models == ("phi-3-mini", "mistral-7b")
    assert set(names.presets) == {*PRESETS, "eco"}
    assert (AUTO, OTHER) == ("auto", "other")


def test_an_option_is_the_config_and_the_profile(snapshot, shipped):
    phi, mistral, slow = (place.option for place in snapshot.routed_deployments)
    assert (phi.model, phi.deployment, phi.context) == ("phi-3-mini", "phi-3-mini", 4096)
    assert phi.capabilities == {"chat", "completions", "logprobs"}
    assert phi.accuracy == 0.685
    assert list(phi.joules.coefficients) == shipped.get_model("phi-3-mini").joules.coefficients
    assert list(phi.seconds.coefficients) == shipped.get_model("phi-3-mini").seconds.coefficients
    assert mistral.capabilities == {"chat", "tools"}
    # The profile's key, not the model's name, says what a deployment costs.
    assert (slow.model, slow.deployment, slow.accuracy) == ("mistral-7b", "mistral-on-l4", 0.705)
    assert set(snapshot.by_name) == {
        ("phi-3-mini", "phi-3-mini"),
        ("mistral-7b", "mistral-7b"),
        ("mistral-7b", "mistral-on-l4"),
    }


def test_candidates_are_all_or_one_models(snapshot):
    assert len(list_candidates(snapshot, None, WANTED, Deciding()).candidates) == 3
    found = list_candidates(snapshot, "mistral-7b", WANTED, Deciding()).candidates
    assert [c.option.deployment for c in found] == ["mistral-7b", "mistral-on-l4"]


def test_candidates_are_as_they_are_now(snapshot):
    one, two = snapshot.routed_deployments[0].deployment.backends
    for _ in range(3):
        one.begin_request()
    two.begin_request()
    only = snapshot.routed_deployments[1].deployment.backends[0]
    for _ in range(5):
        only.record_failure()
    found, picks, *_ = list_candidates(snapshot, None, WANTED, Deciding())
    seen = [(*(place.running for place in c.places), c.up) for c in found]
    assert seen == [(1, True), (False,), (0, True)]
    assert picks == {
        ("phi-3-mini", "phi-3-mini"): two,
        ("mistral-7b", "mistral-on-l4"): snapshot.routed_deployments[2].deployment.backends[0],
    }


def test_candidates_have_the_load_of_the_backend_that_is_picked(snapshot):
    one, two = snapshot.routed_deployments[0].deployment.backends
    one.record_gauges(5.0, 0.0, own=0)
    two.record_gauges(3.0, 4.0, own=0)
    (found,), picks, *_ = list_candidates(snapshot, "phi-3-mini", WANTED, Deciding())
    assert [(place.running, place.queued) for place in found.places] == [(5, 0)]
    assert picks["phi-3-mini", "phi-3-mini"] is one


def test_what_is_made_of_each_candidate_has_all_of_its_values(snapshot):
    found = list_candidates(snapshot, None, WANTED, Deciding()).candidates
    weights = PRESETS["balanced"]
    made = [estimate_candidate(WANTED, candidate, weights, 2.0, []) for candidate in found]
    ranked = make_decision(WANTED, found, weights).candidates
    places = [place for one in (*found, *made, *ranked) for place in one.places]
    for one in (*found, *made, *ranked, *places, *(each.tokens for each in made)):
        assert len(one) == len(one._fields)
        assert type(one)(*one) == one


def test_a_model_that_the_profile_lacks(shipped):
    config = parse_config('models: [{name: x, context: 9, backends: [{url: "http://a"}]}]', "g", {})
    with pytest.raises(ProfileError, match="no model 'x' in the profile"):
        RoutingSnapshot(config, deployments(config), shipped)
