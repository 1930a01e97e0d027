"""Placements by the gateway's own decision: model by policy and weights, backend by least load.

options = {"large": option("large", H100, accuracy=0.8), "small": option("small", H100_8B,
           accuracy=0.7)}
place = by_decision(options, {"large": ("l0", "l1"), "small": ("s0",)}, Weights(0.2, 0.6, 0.2))
run = Lab(backends, place=place).run(arrivals)
"""

from collections.abc import Mapping, Sequence

from backends.simulator.cost_model import Truth
from gateway.scheduling.cost import Cost, Form, Quantity
from gateway.scheduling.decide import Candidate, Option, decide
from gateway.scheduling.decision import Weights
from gateway.scheduling.features import Features
from tests.lab.costs import ProfiledCost, step_profile
from tests.lab.lab import Load, Placed, Placement
from tests.lab.schedule import Arrival


def option(name: str, truth: Truth, *, accuracy: float, cost: ProfiledCost | None = None) -> Option:
    """A deployment as a gateway with a profile of it sees it (exact, where no `cost` is given)."""
    known = cost or step_profile(truth)
    first, second = truth.total_seconds(100, 1), truth.total_seconds(100, 2)
    per_prompt_token = (truth.total_seconds(1100, 1) - first) / 1000
    per_other = truth.price_seconds(100, 1).per_sequence
    return Option(
        model=name,
        deployment=name,
        accuracy=accuracy,
        seconds=Cost(
            Quantity.SECONDS, Form.LOAD, (0.0, per_prompt_token, second - first, 0.0, per_other)
        ),
        joules=Cost(
            Quantity.JOULES,
            Form.LOAD,
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
    options: Mapping[str, Option],
    replicas: Mapping[str, Sequence[str]],
    weights: Weights,
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
            Candidate(options[name], loads[backend].running, True, loads[backend].waiting)
            for name, backend in emptiest.items()
        ]
        features = Features(arrival.tokens_in, arrival.tokens_out)
        best = decide(features, candidates, weights, policy=policy).best
        assert best is not None, "no model can serve this arrival"
        return Placed(emptiest[best.model])

    return place
