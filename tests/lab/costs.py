"""Physical truths to test against, and the costs that profiling them alone would find."""

from dataclasses import dataclass, replace
from functools import cache
from random import Random

import numpy as np
from scipy.optimize import nnls

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.engine import BatchingEngine
from backends.simulator.step_model import StepCost

# Joules and seconds of a decode step at batch B: a B + b and t0 + t1 B, read off measurements of
# vLLM (Qwen3-14B and Llama-3.1-8B on an H100, steady decode). The prompt's and the context's parts
# are estimates: 2 x parameters FLOP a token at 400 TFLOP/s and 600 W; a token's keys and values
# (160 KiB, 128 KiB) at 3 TB/s and 500 W.
H100 = CostModel(
    seconds=StepCost(0.0117, 0.000112, 7.0e-5, 5.5e-8),
    joules=StepCost(5.33, 0.0879, 0.042, 2.7e-5),
    idle_watts=75.0,
    output_sd=0.8,
    context=32_768,
    kv_tokens=400_000,
)
H100_8B = CostModel(
    seconds=StepCost(0.0065, 0.000079, 4.0e-5, 4.4e-8),
    joules=StepCost(3.42, 0.0653, 0.024, 2.2e-5),
    idle_watts=75.0,
    output_sd=0.8,
    context=32_768,
    kv_tokens=500_000,
)
LONG_CONTEXT = CostModel(
    seconds=StepCost(0.0117, 0.000112, 7.0e-5, 5.5e-8),
    joules=StepCost(5.33, 0.0879, 0.042, 8.0e-5),
    idle_watts=75.0,
    context=40_000,
    kv_tokens=2_000_000,
)
"""The same with three times the energy for reading the KV cache (no grouped queries)."""


@dataclass(frozen=True, slots=True)
class ProfiledCost:
    """What a gateway's profile knows of a model's joules, by profiling it alone."""

    prompt_joules: float
    """Per prompt token, without an intercept."""
    own_joules: float = 0.0
    """Per generated token, whatever the company; all three 0: not known."""
    shared_joules: float = 0.0
    """Per step."""
    context_joules: float = 0.0
    """Per generated token and token of context."""

    def scaled(self, factor: float) -> "ProfiledCost":
        """The same, off by a factor throughout."""
        parts = (self.prompt_joules, self.own_joules, self.shared_joules, self.context_joules)
        return ProfiledCost(*(factor * part for part in parts))


def step_profile(truth: CostModel) -> ProfiledCost:
    """The costs that an exact profile would hold."""
    joules = truth.joules
    if isinstance(joules, SimulatedCost):
        _, b1, b2, b3, b4 = joules.all_coefficients
        if not joules.has_load:
            b2, b4 = b2 * (1 - truth.shared_fraction), b2 * truth.shared_fraction
        return ProfiledCost(b1, b2, b4, b3)
    return ProfiledCost(
        joules.per_prompt_token, joules.per_sequence, joules.fixed, joules.per_context_token
    )


@cache
def fitted_profile(truth: CostModel, seed: int = 1, noise: float = 0.03) -> ProfiledCost:
    """The costs found by profiling it alone: batches of 1 to 64, relative least squares.

    E = b1 i + b2 o + b3 o (i + o/2) + b4 o/(1+r), as the `load` form over `context` has it, with
    what `joulegate profile` sees: lengths, joules and company.
    """
    rng = Random(seed)
    rows: list[tuple[float, ...]] = []
    levels = [n for n in (1, 1, 1, 2, 4, 8, 16, 32, 64) if n <= truth.max_num_seqs]
    for batch in levels:
        for _ in range(6):
            # Busy cells have short prompts, as in calibration/profile/workload.py.
            most = min(1500, max(32, 2048 // batch))
            tokens_in, tokens_out = rng.randint(16, most), rng.randint(16, 400)
            engine = BatchingEngine(replace(truth, noise=noise), rng.randrange(1 << 30))
            for number in range(batch):
                engine.submit_request(str(number), tokens_in, tokens_out)
            while (step := engine.run_step()) is not None:
                rows += [
                    (tokens_in, tokens_out, tokens_out * (tokens_in + tokens_out / 2),
                     tokens_out / batch, one.total_joules)
                    for one in step.finished
                ]  # fmt: skip
    table = np.array(rows)
    scaled = table[:, :-1] / table[:, -1:]
    found, _ = nnls(scaled, np.ones(len(rows)))
    prompt, own, context, shared = map(float, found)
    return ProfiledCost(prompt, own, shared, context)
