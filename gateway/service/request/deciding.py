"""What a decision takes from the running process: placement, what was learnt, the fleet's load."""

from dataclasses import dataclass, field

from gateway.config import GatewayConfig
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.energy_price import EnergyPrice
from gateway.scheduling.placement import PlacementRules
from gateway.scheduling.reference_load import ReferenceLoad
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.learnt import Learnt
from gateway.service.request.prompt_reader import PromptReader


@dataclass(slots=True)
class Deciding:
    """One process's; `fixed_load` is the config's reference load, None where it is measured."""

    rules: PlacementRules = field(default_factory=PlacementRules)
    learnt: Learnt | None = None
    load: ReferenceLoad = field(default_factory=ReferenceLoad)
    fixed_load: float | None = None
    price: EnergyPrice | None = None
    reader: PromptReader = field(default_factory=PromptReader)

    def change_config(self, config: GatewayConfig) -> None:
        """Place and compare by another configuration from now on."""
        self.rules = config.placement.rules()
        load = config.reference_load
        self.fixed_load = None if load == "auto" else float(load)

    def weigh(self, weights: MetricWeights) -> MetricWeights:
        """Return weights at the price of joules in force."""
        return weights if self.price is None else self.price.apply(weights)

    def refund_draw(self, ask: InferenceRequest) -> None:
        """Give back what exploring was charged for a request that is not sent by its draw."""
        if self.learnt is not None and self.learnt.accuracy is not None:
            self.learnt.accuracy.refund_draw(ask)

    @property
    def reference_load(self) -> float:
        """The load at which models' joules are compared."""
        return self.load.value if self.fixed_load is None else self.fixed_load
