"""What a prompt costs by itself, which is what a meter's rule begins with."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.registry import Backend, Deployment
from gateway import profile as profiles
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.scheduling.cost import RegressionForm
from gateway.service.request.routing_table import RoutingSnapshot


def place(profile, name="phi-3-mini"):
    models = (ModelConfig(name=name, context=4096, backends=(BackendConfig("http://a"),)),)
    deployment = Deployment(name, name, name, [Backend("http://a")], rng=Random(1))
    return RoutingSnapshot(GatewayConfig(models=models), [deployment], profile).routed_deployments[
        0
    ]


def with_joules(shipped, coefficients):
    model = shipped.get_model("phi-3-mini")
    joules = msgspec.structs.replace(model.joules, coefficients=coefficients)
    changed = msgspec.structs.replace(model, joules=joules, prefill=None)
    return profiles.CostProfile({"phi-3-mini": changed}, "0")


def test_by_the_cost_where_it_was_not_profiled(shipped):
    _, b1, *_ = shipped.get_model("phi-3-mini").joules.coefficients
    assert place(shipped).predict_prefill_joules(100) == pytest.approx(
        100 * b1
    )  # company shares b0


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
    model = shipped.get_model("phi-3-mini")
    measured = profiles.PrefillEnergy(base_joules=3.0, joules_per_token=0.5)
    changed = msgspec.structs.replace(model, prefill=measured)
    profile = profiles.CostProfile({"phi-3-mini": changed}, "0")
    assert place(profile).predict_prefill_joules(10) == 5.0


@pytest.mark.parametrize(
    ("form", "coefficients", "told"),
    [
        ("additive", [1.0, 2.0, 3.0], (3_000_000_000, 0, -1)),
        ("interaction", [1.0, 2.0, 3.0, 1e-6], (3_000_000_000, 1000, -1)),
        ("load", [1.0, 2.0, 3.0, 1e-6, 0.5], (3_000_000_000, 1000, 500_000_000)),
        ("context", [1.0, 2.0, 3.0, 1e-6], (3_000_000_000, 1000, -1)),
        ("load-context", [1.0, 2.0, 3.0, 1e-6, 0.5], (3_000_000_000, 1000, 500_000_000)),
        ("load", [1.0, 2.0, -3.0, -1e-6, 0.5], (0, 0, 500_000_000)),
    ],
)
def test_tokens_are_weighed_by_what_the_form_knows(shipped, form, coefficients, told):
    model = shipped.get_model("phi-3-mini")
    joules = profiles.CostRegression(form=RegressionForm(form), coefficients=coefficients)
    changed = msgspec.structs.replace(model, joules=joules)
    assert place(profiles.CostProfile({"phi-3-mini": changed}, "0")).decode_cost == told


def test_as_profiled_whatever_was_refitted_since(shipped):
    decode = profiles.Decode(
        joules_per_token=0.1, joules_per_context_token=1e-5, joules_per_step=5.0
    )
    changed = msgspec.structs.replace(shipped.get_model("phi-3-mini"), decode=decode)
    told = place(profiles.CostProfile({"phi-3-mini": changed}, "0")).decode_cost
    assert told == (100_000_000, 10_000, 5_000_000_000)
