"""What an attempt that brought nobody an answer cost: its joules, and the tokens it may have had.

Both by how long it took, because nobody saw more of it; a meter may know the joules better.
"""

from typing import Final

from backends.errors import BackendTimeout
from gateway.scheduling.decide import DeploymentOption
from gateway.scheduling.decision import ScoredCandidate
from gateway.scheduling.sequences import SINGLE, SequenceCounts
from gateway.telemetry.request_stages import WastedEnergy

ABANDONED: Final = "abandoned"
"""The reason of an attempt that the gateway itself gave up."""
_WASTEFUL_REASONS: Final = (ABANDONED, BackendTimeout.reason)
_LEAST_TOKEN_SECONDS: Final = 1e-4


def estimate_waste(
    reason: str | None, scored: ScoredCandidate, seconds: float
) -> list[WastedEnergy]:
    """Estimate what a failed attempt cost: by the share of its predicted time it was worked on."""
    if reason not in _WASTEFUL_REASONS:
        return []
    share = min(1.0, seconds / scored.predicted_seconds)
    return [WastedEnergy(scored.model, scored.predicted_joules * share)]


def guess_unseen_tokens(
    option: DeploymentOption,
    prompt_tokens: int,
    running: int,
    seconds: float,
    sequences: SequenceCounts = SINGLE,
) -> int:
    """Guess the tokens that `seconds` beside `running` others were enough for, in all sequences.

    Each has 0 to the context.
    """
    each_in, _ = sequences.find_mean_tokens(prompt_tokens, 0)
    running += sequences.total - 1
    per_token = option.seconds.cost_per_output_token(each_in, running)
    decoding = seconds - option.seconds.predict_cost(each_in, 0, running)
    guess = max(0.0, decoding) / max(per_token, _LEAST_TOKEN_SECONDS)
    return min(round(guess), option.context) * sequences.total
