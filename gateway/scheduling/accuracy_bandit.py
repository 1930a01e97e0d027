"""Accuracy learnt online: what judgements add to each model's predicted chance of being right.

Rules of this file:

- A judgement's score less the profile's prediction is linear in what is read of the prompt: bias +
  kinds' weights by their shares + words' weights / root of their number + shape's weights. Nothing
  judged, nothing added.
- What is believed of the weights is Gaussian with a diagonal covariance, updated once a judgement
  (AROW: Crammer, Kulesza and Dredze, "Adaptive regularization of weight vectors", 2009). Leaving
  the covariances out errs to the wide side where words come together.
- What is known fades: with each half-life half of the precision that was learnt is forgotten, the
  means stay (the discount of Russac, Vernade and Cappé, "Weighted linear bandits for
  non-stationary environments", 2019). So models that nobody asks become uncertain again.
- A sudden change is not waited out: where judgements of a model, within a kind, keep missing the
  prediction to one side (`change_watch`), what is believed there begins again at the mean since
  they do; and as changes seldom come alone, most of what is known of all others is forgotten, so
  that they are tried again.
- No clock and no lots: times are Unix seconds that the caller gives.
"""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from gateway.scheduling.change_watch import WATCH_FIELDS, watch_judgement
from gateway.scheduling.text_features import BUCKETS, SHAPES, TextFeatures

_SHAPE_MEANS: Final = (3.5, 0.3, 0.5, 0.3)
_SHAPE_DEVIATIONS: Final = (1.2, 0.5, 0.5, 0.5)
_MOST_SHAPE: Final = 3.0
_BIAS: Final = BUCKETS + len(SHAPES)
_KINDS: Final = _BIAS + 1
MOST_JUDGED_KINDS: Final = 64
_SIZE: Final = _KINDS + MOST_JUDGED_KINDS
_WORD_VARIANCE, _SHAPE_VARIANCE, _BIAS_VARIANCE, _KIND_VARIANCE = 0.0002, 0.001, 0.001, 0.005
_DOUBT_VARIANCE: Final = 0.15
"""Of a kind's weight once something has changed: until then the profile is trusted more."""
_WORDS_ALONE: Final = 6.0
"""What a word counts where no classifier tells kinds apart: then the words have to."""
_NOISE_VARIANCE: Final = 0.2
"""Of one judgement about the chance of being right: p(1-p) is 0.25 at most."""
_KEPT_IN_DOUBT = 0.02
_FADES_PER_HALF_LIFE: Final = 200
_LEAST, _MOST = 0.001, 0.999
MOST_MODELS: Final = 256


class JudgedFeatures(NamedTuple):
    """What a correction reads of a prompt: the words' buckets, each once, shape and kinds.

    `kinds` holds the shares by the profile's classifier; one kind where the profile has none.
    """

    words: tuple[int, ...]
    shape: tuple[float, ...]
    kinds: tuple[float, ...] = (1.0,)


NO_FEATURES = JudgedFeatures((), (0.0,) * len(SHAPES))


def read_judged_features(
    text: TextFeatures | None, kinds: tuple[float, ...] = ()
) -> JudgedFeatures:
    """Return what is read of a prompt; None: one without text."""
    if text is None:
        return NO_FEATURES
    shape = tuple(
        max(-_MOST_SHAPE, min(_MOST_SHAPE, (value - mean) / deviation))
        for value, mean, deviation in zip(text.shape, _SHAPE_MEANS, _SHAPE_DEVIATIONS, strict=True)
    )
    return JudgedFeatures(text.buckets, shape, kinds[:MOST_JUDGED_KINDS] or (1.0,))


def _weigh_words(features: JudgedFeatures) -> float:
    """Return what each word counts."""
    return (1.0 if len(features.kinds) > 1 else _WORDS_ALONE) / math.sqrt(
        max(1, len(features.words))
    )


class LearntAccuracy(NamedTuple):
    """A model's chance of being right, and the standard deviation of what is believed of it."""

    value: float
    deviation: float


class _ModelBelief:
    """One model's weights: means and variances of words, shape and bias, in this order."""

    __slots__ = ("judged", "means", "misses", "variances")

    def __init__(self) -> None:
        self.means = array("d", bytes(8 * _SIZE))
        self.variances = array("d", _PRIOR)
        self.judged = 0
        self.misses: dict[int, list[float]] = {}
        """By the place of a kind's weight: what `watch_judgement` adds to."""

    def add_up(self, features: JudgedFeatures) -> tuple[float, float]:
        """Return mean and variance of the correction."""
        words, shape, kinds = features
        means, variances = self.means, self.variances
        mean, variance = means[_BIAS], variances[_BIAS]
        if words:
            part = _weigh_words(features)
            mean += part * sum(map(means.__getitem__, words))
            variance += part * part * sum(map(variances.__getitem__, words))
        for at, value in enumerate(shape, BUCKETS):
            mean += value * means[at]
            variance += value * value * variances[at]
        for at, value in enumerate(kinds, _KINDS):
            mean += value * means[at]
            variance += value * value * variances[at]
        return mean, variance

    def update(self, features: JudgedFeatures, static: float, score: float) -> bool:
        """Take one judgement; `static` is its prediction without learning. Tell of a change."""
        mean, variance = self.add_up(features)
        residual = score - static
        if self._watch(features.kinds, static + mean, math.sqrt(variance), score):
            self.judged += 1
            return True
        total = variance + _NOISE_VARIANCE
        error = (residual - mean) / total
        means, variances = self.means, self.variances
        part = _weigh_words(features)
        for at in features.words:
            moved = variances[at] * part
            means[at] += moved * error
            variances[at] -= moved * moved / total
        dense = [
            (_BIAS, 1.0), *enumerate(features.shape, BUCKETS), *enumerate(features.kinds, _KINDS),
        ]  # fmt: skip
        for at, value in dense:
            moved = variances[at] * value
            means[at] += moved * error
            variances[at] -= moved * moved / total
        self.judged += 1
        return False

    def _watch(
        self, kinds: tuple[float, ...], expected: float, deviation: float, score: float
    ) -> bool:
        """Add to what is missed within the likeliest kind; tell whether that is a change."""
        place = _KINDS + kinds.index(max(kinds))
        found = self.misses.setdefault(place, [0.0] * WATCH_FIELDS)
        change = watch_judgement(found, expected, deviation, score)
        if change is None:
            return False
        # The share of a kind is 1 or nearly so: its weight takes the whole of the change.
        self.means[place] += change.error
        self.variances[place] = min(_DOUBT_VARIANCE, _NOISE_VARIANCE / change.judgements)
        del self.misses[place]
        return True

    def doubt_kinds(self) -> None:
        """Forget most of what is known of kinds: something has changed, elsewhere."""
        for at in range(_KINDS, _SIZE):
            kept = _KEPT_IN_DOUBT / self.variances[at]
            self.variances[at] = 1.0 / (1.0 / _DOUBT_VARIANCE + kept)

    def fade(self, kept: float) -> None:
        """Keep so much of the precision that was learnt."""
        self.variances = array(
            "d",
            [
                1.0 / (1.0 / prior + kept * (1.0 / own - 1.0 / prior)) if own < prior else own
                for own, prior in zip(self.variances, _PRIOR, strict=True)
            ],
        )


_PRIOR: Final = array(
    "d",
    [_WORD_VARIANCE] * BUCKETS
    + [_SHAPE_VARIANCE] * len(SHAPES)
    + [_BIAS_VARIANCE]
    + [_KIND_VARIANCE] * MOST_JUDGED_KINDS,
)


class AccuracyBandit:
    """What one process believes of all models. Raises ValueError on a half-life that is none."""

    def __init__(self, half_life_seconds: float) -> None:
        if not half_life_seconds > 0.0:
            raise ValueError("a half-life must be above 0")
        self._half_life_seconds = half_life_seconds
        self._models: dict[str, _ModelBelief] = {}
        self._faded_at: float | None = None

    @property
    def judged(self) -> Mapping[str, int]:
        """Judgements taken, by model."""
        return {name: belief.judged for name, belief in self._models.items()}

    def predict(self, model: str, features: JudgedFeatures, static: float) -> LearntAccuracy:
        """Return a model's chance; `static` is what is predicted without learning."""
        belief = self._models.get(model)
        mean, variance = (_UNTAUGHT if belief is None else belief).add_up(features)
        return LearntAccuracy(min(_MOST, max(_LEAST, static + mean)), math.sqrt(variance))

    def observe(
        self, model: str, features: JudgedFeatures, static: float, score: float, at_seconds: float
    ) -> None:
        """Take one judgement, 0 wrong to 1 right, of a model's answer."""
        self.fade(at_seconds)
        belief = self._models.get(model)
        if belief is None:
            if len(self._models) >= MOST_MODELS:
                del self._models[next(iter(self._models))]
            belief = self._models[model] = _ModelBelief()
        if belief.update(features, static, min(1.0, max(0.0, score))):
            for other in self._models.values():
                if other is not belief:
                    other.doubt_kinds()

    def fade(self, at_seconds: float) -> None:
        """Forget as much as the time since the last call says; seldom does anything."""
        last = self._faded_at
        if last is None or at_seconds < last:
            self._faded_at = at_seconds
            return
        elapsed = at_seconds - last
        if elapsed < self._half_life_seconds / _FADES_PER_HALF_LIFE:
            return
        self._faded_at = at_seconds
        kept = math.exp2(-elapsed / self._half_life_seconds)
        for belief in self._models.values():
            belief.fade(kept)

    def forget_all(self) -> None:
        """Begin anew: the predictions that were corrected are no longer the same."""
        self._models = {}

    def to_state(self) -> dict[str, Any]:
        """Return everything as plain values, for a small file: what no judgement moved is left."""
        return {
            "faded_at": self._faded_at,
            "models": {
                name: {
                    "judged": belief.judged,
                    "misses": [[at, *both] for at, both in belief.misses.items()],
                    "weights": [
                        [at, float(f"{mean:.6g}"), float(f"{own:.6g}")]
                        for at, (mean, own, prior) in enumerate(
                            zip(belief.means, belief.variances, _PRIOR, strict=True)
                        )
                        if own != prior or mean
                    ],
                }
                for name, belief in self._models.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError, KeyError, IndexError."""
        faded = state["faded_at"]
        models = {}
        for name, kept in list(state["models"].items())[-MOST_MODELS:]:
            belief = models[str(name)] = _ModelBelief()
            belief.judged = int(kept["judged"])
            _fill(belief, kept["weights"])
            belief.misses = {
                int(at): [_check_number(float(one)) for one in six]
                for at, *six in kept["misses"][:_SIZE]
                if len(six) == WATCH_FIELDS
            }
        self._models = models
        self._faded_at = None if faded is None else _check_number(float(faded))


def _fill(belief: _ModelBelief, weights: Iterable[tuple[int, float, float]]) -> None:
    for at, mean, variance in weights:
        if not 0 <= at < _SIZE or not 0.0 < variance <= max(_PRIOR[at], _DOUBT_VARIANCE):
            raise ValueError("a weight is out of its range")
        belief.means[at] = _check_number(float(mean))
        belief.variances[at] = float(variance)


def _check_number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


_UNTAUGHT: Final = _ModelBelief()
