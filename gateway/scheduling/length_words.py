"""The length of an answer from the words of its prompt: a linear model of ln(tokens)."""

import math
from dataclasses import dataclass

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.text_features import BUCKETS, SHAPES, TextFeatures, add_weights


@dataclass(frozen=True, slots=True)
class LengthWords:
    """mu = bias + sum of the words' weights / sqrt(words) + shape weights x standardised shape.

    `words` has a weight per bucket, `shape` (weight, mean, deviation) per feature of the shape.
    Raises ValueError where one has another size.
    """

    bias: float
    sigma: float
    words: tuple[float, ...]
    shape: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        if len(self.words) != BUCKETS or len(self.shape) != len(SHAPES):
            raise ValueError(f"words: takes {BUCKETS} weights and {len(SHAPES)} of the shape")

    def predict(self, text: TextFeatures) -> AnswerLength:
        """Return the distribution of the answer's tokens."""
        mu = self.bias
        if text.buckets:
            mu += add_weights(self.words, text.buckets) / math.sqrt(len(text.buckets))
        for (weight, mean, deviation), value in zip(self.shape, text.shape, strict=True):
            mu += weight * (value - mean) / deviation
        return AnswerLength(mu, self.sigma)
