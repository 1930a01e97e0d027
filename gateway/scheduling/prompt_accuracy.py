"""The chance that each model answers this very prompt rightly: linear heads, kinds of prompt, both.

Rules of this file:

- A head is linear in a prompt's words and form; kinds are told apart by the words, and each has
  its share of right answers per model. `mix` is the heads' part; 1 is `prompt`, 0 is `task`.
- What comes out is calibrated on rows that training had not seen, each model's by itself or beside
  the other models' (`score_calibration`).
- `distance` is what is not known of such prompts: the variance of a head's value relative to that
  where nothing was learnt (0 known, 1 unknown). Beyond what training saw in itself the
  value fades into the model's static share.
- `lower` is the value less z standard deviations: what a bound on accuracy is held against.
"""

import math
import struct
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.scheduling.score_calibration import JointCalibration, ScoreCalibration
from gateway.scheduling.text_features import (
    FORMS,
    WORD_BUCKETS,
    TextFeatures,
    add_weights,
    hash_word,
)

STATIC = "static"
CONTEXT_WEIGHT = 0.25
"""What a word of the system prompt counts beside one of the user's."""
MOST_FORM = 3.0
"""How many deviations from its mean a feature of the form counts, at most."""
NO_WEIGHT_BYTE = 128
"""The byte of a kind's weight that stands for none."""


class AccuracyEstimate(NamedTuple):
    """A model's chance of being right, and one that it keeps above with more certainty."""

    value: float
    lower: float


class PromptReading(NamedTuple):
    """What all models share of one prompt; `kinds` holds the share of each kind."""

    words: tuple[int, ...]
    context: tuple[int, ...]
    root: float
    """Square root of the words, those of the context by their weight."""
    form: tuple[float, ...]
    distance: float
    known: float
    """1 within what training saw, 0 far from it: the part of the prediction in the value."""
    kinds: tuple[float, ...]
    scores: Mapping[str, float]
    """Each head's value before calibration."""
    middle: float
    """Their mean."""


@dataclass(frozen=True, slots=True)
class PromptKinds:
    """A linear classifier of kinds of prompt; `words` has a byte per kind for each known word.

    `packed` holds those bytes as one integer of 32-bit fields per word, so that one sum over a
    prompt's words adds up all kinds at once.
    """

    names: tuple[str, ...]
    bias: tuple[float, ...]
    scales: tuple[float, ...]
    words: Mapping[int, bytes]
    packed: Mapping[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = len(self.names)
        if not len(self.bias) == len(self.scales) == size:
            raise ValueError("kinds: bias and scales need one number per name")
        packed = {}
        for word, weights in self.words.items():
            if len(weights) != size:
                raise ValueError("kinds: a word needs one byte per name")
            fields = bytearray(4 * size)
            fields[0::4] = weights
            packed[word] = int.from_bytes(fields, "little")
        object.__setattr__(self, "packed", packed)

    def classify(self, words: tuple[int, ...], root: float) -> tuple[float, ...]:
        """Return the share of each kind; they sum to 1."""
        get = self.packed.get
        found = [one for one in map(get, words) if one is not None]
        size = len(self.names)
        sums = struct.unpack(f"<{size}I", sum(found).to_bytes(4 * size, "little"))
        none, part = NO_WEIGHT_BYTE * len(found), 1.0 / root
        values = [
            bias + scale * (total - none) * part
            for bias, scale, total in zip(self.bias, self.scales, sums, strict=True)
        ]
        top = -max(values)
        shares = list(map(math.exp, map(top.__add__, values)))
        return tuple(map((1.0 / sum(shares)).__mul__, shares))


@dataclass(frozen=True, slots=True)
class AccuracyHead:
    """One model's: bias + words' weights / root + form's weights; `kinds` its share per kind."""

    bias: float
    words: "array[float]"
    form: tuple[float, ...]
    kinds: tuple[float, ...]
    calibration: ScoreCalibration | JointCalibration


@dataclass(frozen=True, slots=True)
class PromptAccuracy:
    """The heads of all models that were trained together. Raises ValueError on a wrong size.

    `means` and `deviations` standardise the form; `variance` has, per word, its part of the
    distance; `familiar` is the distance that 95% of the trained prompts keep below, and `noise`
    the standard deviation of a head's value at distance 1.
    """

    heads: Mapping[str, AccuracyHead]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    variance: "array[float]"
    familiar: float
    noise: float
    mix: float
    kinds: PromptKinds | None = None

    def __post_init__(self) -> None:
        size = len(self.variance)
        kinds = 0 if self.kinds is None else len(self.kinds.names)
        if not 0 < size <= WORD_BUCKETS or WORD_BUCKETS % size:
            raise ValueError(f"accuracy: the buckets must divide {WORD_BUCKETS}, not be {size}")
        if len(self.means) != len(FORMS) or len(self.deviations) != len(FORMS):
            raise ValueError(f"accuracy: the form has {len(FORMS)} features")
        for name, head in self.heads.items():
            if len(head.words) != size or len(head.form) != len(FORMS):
                raise ValueError(f"accuracy: {name}: takes {size} words and {len(FORMS)} of form")
            if len(head.kinds) != kinds or (self.mix < 1.0 and not kinds):
                raise ValueError(f"accuracy: {name}: takes a share for each of {kinds} kinds")

    @property
    def form(self) -> str:
        """What it is called in public."""
        if self.mix == 1.0:
            return "prompt"
        return "task" if self.mix == 0.0 else "mixture"

    def read(self, text: TextFeatures, context: TextFeatures | None = None) -> PromptReading:
        """Return what all models share of a prompt; `context` is its system prompt."""
        words = _fold(text.words, len(self.variance))
        around = () if context is None else _fold(context.words, len(self.variance))
        count = max(1.0, len(words) + CONTEXT_WEIGHT**2 * len(around))
        root = math.sqrt(count)
        form = []
        for value, mean, deviation in zip(text.form, self.means, self.deviations, strict=True):
            off = (value - mean) / deviation
            if not -MOST_FORM < off < MOST_FORM:
                off = MOST_FORM if off > 0.0 else -MOST_FORM
            form.append(off)
        spread = add_weights(self.variance, words)
        if around:
            spread += CONTEXT_WEIGHT**2 * add_weights(self.variance, around)
        distance = spread / count if words or around else 1.0
        room = max(1e-9, 1.0 - self.familiar)
        known = min(1.0, max(0.0, 1.0 - 2.0 * (distance - self.familiar) / room))
        kinds = () if self.kinds is None else self.kinds.classify(text.words, root)
        scores, mix = {}, self.mix
        for name, head in self.heads.items():
            total = 0.0
            if mix > 0.0:
                linear = add_weights(head.words, words)
                if around:
                    linear += CONTEXT_WEIGHT * add_weights(head.words, around)
                linear = head.bias + linear / root + sum(map(float.__mul__, head.form, form))
                total = mix * linear
            if mix < 1.0:
                total += (1.0 - mix) * sum(map(float.__mul__, head.kinds, kinds))
            scores[name] = total
        middle = sum(scores.values()) / max(1, len(scores))
        return PromptReading(
            words, around, root, tuple(form), distance, known, kinds, scores, middle
        )

    def predict(
        self, model: str, reading: PromptReading, static: float, z: float = 0.0
    ) -> AccuracyEstimate:
        """Return one model's chance; `static` is what the value fades into far from training."""
        head = self.heads.get(model)
        if head is None:
            return AccuracyEstimate(static, static)
        share = head.calibration.apply(reading.scores[model], reading.middle)
        value = static + reading.known * (share - static)
        lower = value - z * self.noise * math.sqrt(reading.distance)
        return AccuracyEstimate(value, max(0.0, lower))


class FeatureEffect(NamedTuple):
    """What one word, or one feature of the form, adds to each model's value before calibration."""

    feature: str
    effects: dict[str, float]


def list_effects(
    model: PromptAccuracy, reading: PromptReading, words: Iterable[str], *, most: int = 8
) -> list[FeatureEffect]:
    """Return what tells the models apart most, first; `words` are those of the prompt itself."""
    size, found = len(model.variance), []
    for word in set(words):
        at = hash_word(word) % size
        effects = {
            name: model.mix * head.words[at] / reading.root for name, head in model.heads.items()
        }
        found.append(FeatureEffect(word, effects))
    for at, name in enumerate(FORMS):
        value = model.mix * reading.form[at]
        effects = {key: value * head.form[at] for key, head in model.heads.items()}
        found.append(FeatureEffect(f"form:{name}", effects))
    found.sort(key=lambda one: (-_spread(list(one.effects.values())), one.feature))
    return [one for one in found[:most] if any(one.effects.values())]


def _spread(values: list[float]) -> float:
    return max(values) - min(values) if len(values) > 1 else abs(values[0])


def _fold(words: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return words in a smaller number of buckets, each once."""
    if size == WORD_BUCKETS:
        return words
    return tuple(sorted({word % size for word in words}))
