"""Accuracy by prompt as a profile holds it: heads of 32-bit floats, kinds of prompt as bytes."""

import sys
from array import array
from typing import Annotated

from msgspec import Meta, Struct

from gateway.scheduling.prompt_accuracy import (
    AccuracyHead,
    PromptAccuracy,
    PromptKinds,
)
from gateway.scheduling.score_calibration import JointCalibration, ScoreCalibration

_Share = Annotated[float, Meta(ge=0.0, le=1.0)]
_Sane = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Positive = Annotated[float, Meta(gt=0.0, le=1e6)]
MOST_KINDS = 64


def pack_floats(values: "array[float]") -> bytes:
    """Return 32-bit floats as little-endian bytes."""
    if sys.byteorder == "big":
        values = array("f", values)
        values.byteswap()
    return values.tobytes()


def unpack_floats(raw: bytes) -> "array[float]":
    """Return little-endian bytes as 32-bit floats. Raises ValueError on a broken length."""
    values = array("f")
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    if not all(map((-1e6).__le__, values)) or not all(map((1e6).__ge__, values)):
        raise ValueError("accuracy: a weight is no sane number")
    return values


class KindsTable(Struct, frozen=True, forbid_unknown_fields=True):
    """Kinds of prompt and the words that tell them apart.

    `words` holds the words' buckets (16-bit, little-endian, base64), `weights` a byte per word and
    kind (128 is none), `scales` what a byte is worth.
    """

    names: Annotated[list[str], Meta(min_length=1, max_length=MOST_KINDS)]
    bias: list[_Sane]
    scales: list[_Sane]
    words: bytes
    weights: bytes

    def make(self) -> PromptKinds:
        """Return the pure classifier. Raises ValueError on a wrong size."""
        size, found = len(self.names), self.words
        count = len(found) // 2
        if len(found) != 2 * count or len(self.weights) != count * size:
            raise ValueError(f"kinds: {count} words take {count * size} weights")
        rows = {
            int.from_bytes(found[2 * at : 2 * at + 2], "little"): self.weights[
                at * size : at * size + size
            ]
            for at in range(count)
        }
        return PromptKinds(tuple(self.names), tuple(self.bias), tuple(self.scales), rows)


class JointSurface(Struct, frozen=True, forbid_unknown_fields=True):
    """A share's logit over u, a score less the mean of all models' scores, and v, that mean.

    `weights` are those of 1, u, v, u^2, uv and v^2; `own` and `common` bound u and v.
    """

    weights: tuple[_Sane, _Sane, _Sane, _Sane, _Sane, _Sane]
    own: tuple[_Sane, _Sane]
    common: tuple[_Sane, _Sane]

    def make(self) -> JointCalibration:
        """Return the pure calibration. Raises ValueError."""
        if self.own[0] > self.own[1] or self.common[0] > self.common[1]:
            raise ValueError("calibration: the bounds of a joint one must rise")
        return JointCalibration(self.weights, self.own, self.common)


class HeadWeights(Struct, frozen=True, forbid_unknown_fields=True):
    """One model's: 32-bit floats (little-endian, base64) per word; `kinds` its share per kind.

    `static` is its share over all labels; `calibration` has [score, share] points, both rising,
    or `joint` stands in its place.
    """

    bias: _Sane
    static: _Share
    words: bytes
    form: list[_Sane]
    calibration: list[tuple[_Sane, _Share]] = []
    joint: JointSurface | None = None
    kinds: list[_Share] = []
    n: Annotated[int, Meta(ge=0)] = 0
    ece: _Share | None = None
    """Expected calibration error on rows that training had not seen."""

    def make(self) -> AccuracyHead:
        """Return the pure head. Raises ValueError."""
        if (self.joint is None) is not bool(self.calibration):
            raise ValueError("calibration: takes points or a joint one")
        found = self._make_line() if self.joint is None else self.joint.make()
        words = unpack_floats(self.words)
        return AccuracyHead(self.bias, words, tuple(self.form), tuple(self.kinds), found)

    def _make_line(self) -> ScoreCalibration:
        x, y = zip(*self.calibration, strict=True)
        if list(x) != sorted(set(x)) or list(y) != sorted(y):
            raise ValueError("calibration: scores and shares must rise")
        return ScoreCalibration(x, y)


class AccuracyByPrompt(Struct, frozen=True, forbid_unknown_fields=True):
    """What `joulegate accuracy train` makes: `form` is task, prompt or mixture.

    `mix` is the heads' part beside the kinds' table; `variance` (32-bit floats) has each word's
    part of the distance to known territory, `familiar` the distance that 95% of the trained prompts
    keep below, `noise` the deviation of a head's value where nothing is known.
    """

    heads: Annotated[dict[str, HeadWeights], Meta(min_length=1)]
    means: list[_Sane]
    deviations: list[_Positive]
    variance: bytes
    familiar: _Share
    noise: _Share
    mix: _Share = 1.0
    kinds: KindsTable | None = None

    def make(self) -> PromptAccuracy:
        """Return the pure model that the scheduler evaluates. Raises ValueError."""
        return PromptAccuracy(
            {name: head.make() for name, head in self.heads.items()},
            tuple(self.means),
            tuple(self.deviations),
            unpack_floats(self.variance),
            self.familiar,
            self.noise,
            self.mix,
            None if self.kinds is None else self.kinds.make(),
        )
