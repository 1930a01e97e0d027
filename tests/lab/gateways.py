"""Placements by the gateway's own code: candidates, places, reference load, backlog, stale gauges.

fleet = FleetSpec({"qwen": ("Qwen3-14B@H100", 0.7, 4)})
place = LabGateways(fleet, gateways=2, look_seconds=3.0)
run = Lab(fleet.backends, place=place, onlooker=place, meter=Meter(off=True)).run(arrivals)

Each gateway keeps its own count of what it has sent, and sees the rest by vLLM's gauges, whenever
it reads them; all of it on the lab's clock.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log

import msgspec

from backends.registry import Backend, Deployment
from backends.simulator.cost_model import CostModel
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import load_library
from gateway.profile import CostProfile, ModelProfile, OutputCoefficients
from gateway.scheduling.decide import make_decision
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.placement import PlacementMode, PlacementRules
from gateway.scheduling.prefix_holders import NOTHING_HELD, DeploymentName
from gateway.service.request.candidates import list_candidates
from gateway.service.request.deciding import Deciding
from gateway.service.request.routing_table import RoutingSnapshot
from tests.lab.lab import Load, Onlooker, Placed
from tests.lab.results import LabRequest
from tests.lab.schedule import Arrival
from tests.lab.server import LabBackend

DEFAULT = MetricWeights.from_values(0.5, 0.3, 0.2)
MEAN_TOKENS_OUT, SIGMA = 300.0, 0.8
CONTEXT = 32_768
SWEEP_SECONDS = 0.25
"""How often a gateway notes its load; the product's does it more often still."""


def library_model(entry: str, accuracy: float) -> ModelProfile:
    """A library entry whose answers are log-normal with a mean of 300 tokens."""
    found = build_model_profile(load_library(), entry, accuracy=accuracy)
    mu = log(MEAN_TOKENS_OUT) - SIGMA**2 / 2
    output = OutputCoefficients(form="lognormal", mu=mu, sigma=SIGMA)
    return msgspec.structs.replace(found, output=output)


def true_costs(model: ModelProfile) -> CostModel:
    """The simulator's truth of such a model: its `load` form, and a cache that is large enough."""
    return CostModel.from_profile(msgspec.to_builtins(model), context=CONTEXT, kv_tokens=400_000)


@dataclass(frozen=True)
class FleetSpec:
    """Replicas of library entries: {name: (entry, accuracy, replicas)}."""

    models: Mapping[str, tuple[str, float, int]]
    profiles: dict[str, ModelProfile] = field(init=False)
    replicas: dict[str, tuple[str, ...]] = field(init=False)
    """Backends' names by model."""
    backends: tuple[LabBackend, ...] = field(init=False)

    def __post_init__(self) -> None:
        profiles, replicas, backends = {}, {}, []
        for name, (entry, accuracy, count) in self.models.items():
            profiles[name] = library_model(entry, accuracy)
            replicas[name] = tuple(f"{name}-{at}" for at in range(count))
            truth = true_costs(profiles[name])
            backends += [LabBackend(one, truth, gpu=one) for one in replicas[name]]
        object.__setattr__(self, "profiles", profiles)
        object.__setattr__(self, "replicas", replicas)
        object.__setattr__(self, "backends", tuple(backends))

    def config(self) -> GatewayConfig:
        """A gateway's config of the fleet."""
        return GatewayConfig(
            models=tuple(
                ModelConfig(
                    name,
                    context=CONTEXT,
                    backends=tuple(BackendConfig(f"http://{one}") for one in self.replicas[name]),
                )
                for name in self.models
            )
        )


class _Gateway:
    """One process."""

    def __init__(self, fleet: FleetSpec, lab: "LabGateways", deciding: Deciding) -> None:
        config = fleet.config()
        deployments = [
            Deployment(
                name,
                name,
                name,
                [Backend(f"http://{one}", clock=lambda: lab.now) for one in fleet.replicas[name]],
                rng=random.Random(1),
            )
            for name in fleet.models
        ]
        self.snapshot = RoutingSnapshot(config, deployments, CostProfile(fleet.profiles, "lab"))
        self.backends = {one.label: one for each in deployments for one in each.backends}
        self.deciding = deciding
        self.read_at = 0.0

    def note_load(self, now: float) -> None:
        """As the product's periodic round does."""
        running = [sum(one.running_and_queued) for one in self.backends.values()]
        self.deciding.load.add(running, now)


class LabGateways(Onlooker):
    """Gateways before one fleet; each arrival goes to one of them, by lot."""

    look_seconds = SWEEP_SECONDS

    def __init__(
        self,
        fleet: FleetSpec,
        *,
        gateways: int = 1,
        gauge_seconds: tuple[float, ...] = (2.0,),
        rules: PlacementRules = PlacementRules(),  # noqa: B008 - frozen
        weights: MetricWeights = DEFAULT,
        own_load: bool = False,
        forced: tuple[float, str] = (0.0, ""),
        spread_until: float = 0.0,
    ) -> None:
        """Read gauges every `gauge_seconds[n]` (gateway n).

        With `own_load` models' joules are compared at each one's own load, as the product does not.
        `forced` sends all to one model until then; before `spread_until` places are the emptiest.
        """
        self.now = 0.0
        self.most_running: dict[str, int] = {}
        """The most that ever ran and waited at each backend."""
        self._fleet = fleet
        self._rules = rules
        self._weights = weights
        self._own_load = own_load
        self._forced = forced
        self._spread_until = spread_until
        self._gauge_seconds = gauge_seconds
        self._random = random.Random(7)
        self._gateways = [_Gateway(fleet, self, Deciding(rules)) for _ in range(gateways)]
        self._sent: dict[int, tuple[_Gateway, Backend]] = {}
        self._unread: dict[int, int] = {}

    def __call__(self, arrival: Arrival, loads: Mapping[str, Load]) -> Placed:
        """Decide as `make_plan` does."""
        return self.decide(arrival, loads)

    def decide(
        self,
        arrival: Arrival,
        loads: Mapping[str, Load],
        held: Mapping[DeploymentName, Mapping[str, int]] = NOTHING_HELD,
    ) -> Placed:
        """Decide, with what backends hold of the conversation."""
        self.now = arrival.at_seconds
        gateway = self._random.choice(self._gateways)
        deciding = gateway.deciding
        until, only = self._forced
        rules = self._rules
        if self.now < self._spread_until:
            rules = PlacementRules(PlacementMode.SPREAD)
        deciding.rules = rules
        model = only if self.now < until else None
        features = RequestFeatures(arrival.tokens_in, arrival.limit)
        found = list_candidates(gateway.snapshot, model, features, deciding, held=held)
        best = make_decision(
            features,
            found.candidates,
            arrival.weights or self._weights,
            reference_load=None if self._own_load else deciding.reference_load,
        ).best_candidate
        assert best is not None, "no model can serve this arrival"
        backend = gateway.backends[best.backend]
        backend.inflight += 1
        backend.add_prompt_tokens(best.tokens_in)
        # The lab numbers requests in the order of arrivals.
        number = len(self._sent)
        self._sent[number] = (gateway, backend)
        self._unread[number] = best.tokens_in
        there = 1 + sum(loads[best.backend])
        self.most_running[best.backend] = max(there, self.most_running.get(best.backend, 0))
        return Placed(best.backend)

    def look(self, now: float, loads: Mapping[str, Load]) -> None:
        """Note loads, and read gauges where that is due."""
        self.now = now
        for at, gateway in enumerate(self._gateways):
            gateway.note_load(now)
            if now - gateway.read_at >= self._gauge_seconds[at % len(self._gauge_seconds)]:
                gateway.read_at = now
                for name, backend in gateway.backends.items():
                    running, waiting = loads[name]
                    backend.record_gauges(running, waiting, own=backend.inflight)

    def first(self, now: float, request: LabRequest) -> None:
        """A prompt has been read."""
        self.now = now
        self._sent[request.number][1].add_prompt_tokens(-self._unread.pop(request.number))

    def ended(self, now: float, request: LabRequest) -> None:
        """One less is there."""
        self.now = now
        backend = self._sent[request.number][1]
        backend.inflight -= 1
        backend.add_prompt_tokens(-self._unread.pop(request.number, 0))
