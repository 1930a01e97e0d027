"""Placements by the gateway's own decision: model by policy and weights, backend by least load.

options = {"large": option("large", H100, accuracy=0.8), "small": option("small", H100_8B,
           accuracy=0.7)}
place = by_decision(options, {"large": ("l0", "l1"), "small": ("s0",)}, Weights(0.2, 0.6, 0.2))
run = Lab(backends, place=place).run(arrivals)
"""

from collections.abc import Mapping, Sequence

from backends.simulator.cost_model import CostModel
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.decide import DeploymentOption, RoutingCandidate, make_decision
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures
from tests.lab.costs import ProfiledCost, step_profile
from tests.lab.lab import Load, Placed, Placement
from tests.lab.schedule import Arrival


def option(
    name: str, truth: CostModel, *, accuracy: float, cost: ProfiledCost | None = None
) -> DeploymentOption:
    """A deployment as a gateway with a profile of it sees it (exact, where no `cost` is given)."""
    known = cost or step_profile(truth)
    first, second = truth.total_seconds(100, 1), truth.total_seconds(100, 2)
    per_prompt_token = (truth.total_seconds(1100, 1) - first) / 1000
    per_other = truth.price_seconds(100, 1).per_sequence
    return DeploymentOption(
        model=name,
        deployment=name,
        accuracy=accuracy,
        seconds=CostFunction(
            CostQuantity.SECONDS,
            RegressionForm.LOAD,
            (0.0, per_prompt_token, second - first, 0.0, per_other),
        ),
        joules=CostFunction(
            CostQuantity.JOULES,
            RegressionForm.LOAD,
            (
                0.0,
                known.prompt_joules,
                known.own_joules,
                known.context_joules,
                known.shared_joules,
            ),
        ),
        context=truth.context,
    )


def by_decision(
    options: Mapping[str, DeploymentOption],
    replicas: Mapping[str, Sequence[str]],
    weights: MetricWeights,
    *,
    policy: str = "fair-ols",
) -> Placement:
    """Decide for each arrival as the gateway does, by the loads of that moment."""

    def place(arrival: Arrival, loads: Mapping[str, Load]) -> Placed:
        emptiest = {
            name: min(backends, key=lambda backend: sum(loads[backend]))
            for name, backends in replicas.items()
        }
        candidates = [
            RoutingCandidate(options[name], loads[backend].running, True, loads[backend].waiting)
            for name, backend in emptiest.items()
        ]
        features = RequestFeatures(arrival.tokens_in, arrival.tokens_out)
        best = make_decision(features, candidates, weights, policy=policy).best_candidate
        assert best is not None, "no model can serve this arrival"
        return Placed(emptiest[best.model])

    return place
