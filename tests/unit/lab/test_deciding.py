"""The gateway's decision on the virtual clock."""

import pytest

from gateway.scheduling.decision import MetricWeights
from tests.lab import H100, H100_8B, Arrival, Lab, LabBackend, Load, Meter, poisson
from tests.lab.deciding import by_decision, option

OPTIONS = {
    "large": option("large", H100, accuracy=0.8),
    "small": option("small", H100_8B, accuracy=0.7),
}
REPLICAS = {"large": ("l0", "l1"), "small": ("s0",)}
BACKENDS = [
    LabBackend("l0", H100, gpu="0"),
    LabBackend("l1", H100, gpu="1"),
    LabBackend("s0", H100_8B, gpu="2"),
]


@pytest.mark.parametrize(
    ("weights", "used"),
    [(MetricWeights(1.0, 0.0, 0.0), {"l0", "l1"}), (MetricWeights(0.0, 1.0, 0.0), {"s0"})],
)
def test_weights_choose_the_model_and_its_replicas_are_filled_evenly(weights, used):
    place = by_decision(OPTIONS, REPLICAS, weights)
    lab = Lab(BACKENDS, place=place, meter=Meter(off=True))
    run = lab.run(poisson(rate=6.0, seconds=60.0, seed=1))
    counts = {name: sum(one.backend == name for one in run.requests) for name in REPLICAS["large"]}
    assert {one.backend for one in run.requests} == used
    if "l0" in used:
        assert abs(counts["l0"] - counts["l1"]) < 0.3 * len(run.requests)


def test_a_prediction_at_a_load_is_what_that_load_costs():
    """What the option predicts with fifteen others is within a tenth of the truth there."""
    arrivals = [Arrival(0.0, 200, 300) for _ in range(16)]
    run = Lab([LabBackend("l0", H100)], meter=Meter(off=True)).run(arrivals)
    predicted = OPTIONS["large"].joules.predict_cost(200, 300, 15)
    for one in run.requests:
        assert predicted == pytest.approx(one.truth.total_joules, rel=0.1)


def test_the_loads_that_a_placement_sees_are_those_of_its_moment():
    seen = []

    def place(_arrival, loads):
        seen.append(loads["l0"])
        return by_decision(OPTIONS, REPLICAS, MetricWeights(1.0, 0.0, 0.0))(_arrival, loads)

    Lab(BACKENDS, place=place, meter=Meter(off=True)).run(
        [Arrival(0.0, 100, 400), Arrival(1.0, 100, 400), Arrival(1.5, 100, 400)]
    )
    assert seen[0] == Load(0, 0)
    assert seen[1] == Load(1, 0)
    assert seen[2].running == 1
