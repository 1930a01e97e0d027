"""What a prompt costs by itself, which is what a meter's rule begins with."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.registry import Backend, Deployment
from gateway import profile as profiles
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.service.request.routing_table import RoutingSnapshot


def place(profile, name="phi-3-mini"):
    models = (ModelConfig(name=name, context=4096, backends=(BackendConfig("http://a"),)),)
    deployment = Deployment(name, name, name, [Backend("http://a")], rng=Random(1))
    return RoutingSnapshot(GatewayConfig(models=models), [deployment], profile).routed_deployments[
        0
    ]


def with_joules(shipped, coefficients):
    model = shipped.model("phi-3-mini")
    joules = msgspec.structs.replace(model.joules, coefficients=coefficients)
    changed = msgspec.structs.replace(model, joules=joules, prefill=None)
    return profiles.CostProfile({"phi-3-mini": changed}, "0")


def test_by_the_cost_where_it_was_not_profiled(shipped):
    b0, b1, *_ = shipped.model("phi-3-mini").joules.coefficients
    assert place(shipped).predict_prefill_joules(100) == pytest.approx(b0 + 100 * b1)


@given(
    st.floats(-1000.0, 1000.0),
    st.floats(-10.0, 10.0),
    st.integers(0, 100_000),
)
def test_it_is_never_negative_and_never_falls_with_the_prompt(shipped, b0, b1, tokens):
    found = place(with_joules(shipped, [b0, b1, 1.0]))
    assert found.predict_prefill_joules(tokens) >= 0.0
    assert found.predict_prefill_joules(tokens + 1) >= found.predict_prefill_joules(tokens)


def test_as_profiled_where_it_was(shipped):
    model = shipped.model("phi-3-mini")
    measured = profiles.PrefillEnergy(base_joules=3.0, joules_per_token=0.5)
    changed = msgspec.structs.replace(model, prefill=measured)
    profile = profiles.CostProfile({"phi-3-mini": changed}, "0")
    assert place(profile).predict_prefill_joules(10) == 8.0
