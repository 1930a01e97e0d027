"""A backend of a lab, and what its gateway tells of it."""

from dataclasses import dataclass, replace

from backends.simulator.cost_model import CostModel
from backends.simulator.engine import BatchingEngine
from tests.lab.costs import ProfiledCost, step_profile
from tests.lab.metering import Gpu, Teller
from tests.lab.results import LabRequest


@dataclass(frozen=True, slots=True)
class LabBackend:
    """One vLLM server. Those with the same `gpu` share its counters and its ledger."""

    name: str
    truth: CostModel
    gpu: str = "gpu"
    cost: ProfiledCost | None = None
    """What the gateway's profile says of it; None: exactly the truth."""


class LabServer:
    """A backend at work."""

    def __init__(self, spec: LabBackend, place: int, gpu: Gpu, seed: int) -> None:
        self.name = spec.name
        self.place = place
        self.gpu = gpu
        # Idle power is the GPU's, whose engines may be several.
        self.engine = BatchingEngine(replace(spec.truth, idle_watts=0.0), seed)
        self.stepping = False
        self.requests: dict[str, LabRequest] = {}
        self.prompt_tokens = self.generated_tokens = 0
        self.report_due = False
        """Whether the gateway looks at its streams when the step under way has ended."""
        self.load_seconds = self.share_seconds = self.load_since = 0.0
        self.there = 0
        truth = spec.truth

        def first_share(tokens_in: int, tokens_out: int) -> float:
            whole = truth.total_seconds(tokens_in, max(tokens_out, 1))
            return min(truth.total_seconds(tokens_in, 1) / whole, 1.0)

        def guess(tokens_in: int, seconds: float) -> int:
            first = truth.total_seconds(tokens_in, 1)
            per_token = truth.total_seconds(tokens_in, 101) - first
            return max(0, round(100 * (seconds - first) / per_token))

        cost = spec.cost or step_profile(truth)
        self.teller = Teller(gpu, spec.name, cost, first_share, guess)

    def change(self, now: float, by: int) -> None:
        """So many more are there from now on."""
        passed = now - self.load_since
        self.load_seconds += self.there * passed
        self.share_seconds += passed / max(1, self.there)
        self.load_since = now
        self.there += by
