"""What a worker has seen and tells the others: answer lengths, tokens, judgements."""

import msgspec

from gateway.scheduling.features import TokenScale
from gateway.service.request.accuracy_learning import AnswerJudged, FeedbackHeard


class TokensSeen(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """A prompt's tokens as counted here, and as its model reported them."""

    model: str
    scale: TokenScale
    counted: int
    dense_chars: int
    tokens: int


class LengthSeen(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """An answer's length, and what was expected of it without learning."""

    model: str
    application: str
    base_mu: float
    base_sigma: float
    tokens: int
    cut: bool
    at_seconds: float


Told = LengthSeen | TokensSeen | AnswerJudged | FeedbackHeard
"""What workers tell each other."""
