"""Truths of many kinds, and an engine run to its end."""

from hypothesis import settings
from hypothesis import strategies as st

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.engine import BatchingEngine, EngineStep, RequestCost

PHI = CostModel(
    seconds=SimulatedCost("additive", (-0.0249, 0.0071, 0.0468)),
    joules=SimulatedCost("additive", (40.90, 0.337, 5.787)),
)
# The machine may be busy: a property has no deadline.
PROPERTY = settings(deadline=None, max_examples=60)
# Zero or far enough from it that a relative 1e-9 means something.
positive = st.floats(1e-4, 20.0)
intercepts = st.floats(-2.0, 60.0)
tokens = st.integers(1, 600)


@st.composite
def costs(draw):
    form = draw(st.sampled_from(["additive", "interaction", "context", "load", "load-context"]))
    coefficients = [draw(intercepts), draw(positive), draw(positive)]
    if form != "additive":
        coefficients.append(draw(st.floats(0.0, 0.01)))
    if "load" in form:
        coefficients.append(draw(st.floats(0.0, 5.0)))
    return SimulatedCost(form, tuple(coefficients))


truths = st.builds(
    CostModel,
    seconds=costs(),
    joules=costs(),
    shared_fraction=st.floats(0.0, 1.0),
    slowdown_per_running=st.floats(0.0, 0.2),
    noise=st.sampled_from([0.0, 0.2]),
    max_num_seqs=st.integers(1, 8),
)


def run(engine: BatchingEngine) -> list[EngineStep]:
    steps = []
    while (step := engine.run_step()) is not None:
        steps.append(step)
    return steps


def ended(steps: list[EngineStep]) -> dict[str, RequestCost]:
    return {truth.request_id: truth for step in steps for truth in step.finished}
