"""What a request keeps for learning, and what a worker has seen and tells the others."""

from collections.abc import Mapping

import msgspec

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.features import RequestFeatures, TokenScale
from gateway.scheduling.prefix_holders import NOTHING_HELD, DeploymentName, PrefixMarks
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


class PrefixSeen(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """An answer to a conversation, and what its backend's prefix cache had of it."""

    deployment: tuple[str, str]
    backend: str
    turns: tuple[bytes, ...]
    leading: bytes | None
    leading_share: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    held_tokens: int
    at_seconds: float


Told = LengthSeen | TokensSeen | PrefixSeen | AnswerJudged | FeedbackHeard
"""What workers tell each other."""


class Lesson(msgspec.Struct, frozen=True):
    """What a request has to keep until its answer's length is known.

    `bases` holds what was expected without learning, by deployment. `free` is false where the
    length is not the model's own choice. `prefix` are the conversation's beginnings, None where
    no cache is reported, and `held` the tokens that each backend of a deployment had of them.
    """

    application: str
    bases: Mapping[tuple[str, str], AnswerLength]
    counted_tokens: int
    dense_chars: int
    has_media: bool
    free: bool
    min_tokens: int
    prefix: PrefixMarks | None = None
    held: Mapping[DeploymentName, Mapping[str, int]] = NOTHING_HELD


def make_lesson(
    features: RequestFeatures,
    application: str,
    bases: Mapping[tuple[str, str], AnswerLength],
    *,
    has_media: bool,
    prefix: PrefixMarks | None = None,
    held: Mapping[DeploymentName, Mapping[str, int]] = NOTHING_HELD,
) -> Lesson:
    """Return what a request keeps for learning."""
    return Lesson(
        application,
        bases,
        features.tokens_in,
        features.dense_chars,
        has_media or features.exact or features.truncate_tokens is not None,
        not features.ignore_eos,
        features.min_tokens,
        prefix,
        held,
    )
