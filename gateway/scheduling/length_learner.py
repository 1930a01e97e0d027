"""Answer lengths learnt while serving: per model, and per application of it.

Rules of this file:

- An application is whatever shares a key (the caller hashes system prompt, tools, answer format).
- A model's level is shrunk towards the profile; an application's towards the model's level plus
  what the same application does on other models: one that answers briefly here does so there, and
  a model that it never asked is not taken for the longest-winded.
- The deviation within an application is pooled over a model's applications while it has few answers
  of its own.
- The table is bounded; the application that was silent longest is forgotten first.
"""

import math
from typing import Any, Final

from gateway.scheduling.answer_length import AnswerLength, make_length
from gateway.scheduling.candidate import LearntLength
from gateway.scheduling.censored_lengths import CensoredLengths, LengthPrior
from gateway.scheduling.tuple_maker import tuple_maker

APPLICATION, MODEL = "application", "model"
MOST_APPLICATIONS: Final = 2000

_MODEL_MOST, _APPLICATION_MOST = 5000.0, 1000.0
_MODEL_PRIOR_N = 5.0
_APPLICATION_PRIOR_N = 0.5
_SIGMA_PRIOR_N = 6.0
_LEAST_SIGMA = 0.05
_LEAST_N = 0.5
_make_learnt = tuple_maker(LearntLength)


class _ModelLevel:
    """One model: all its answers, and the spread within its applications."""

    __slots__ = ("base_mu", "degrees", "lengths", "squares")

    def __init__(self, base_mu: float, lengths: CensoredLengths | None = None) -> None:
        self.base_mu = base_mu
        self.lengths = lengths or CensoredLengths(_MODEL_MOST)
        self.squares = 0.0
        self.degrees = 0.0

    def estimate_within(self, sigma: float) -> float:
        """Return the deviation within an application, from `sigma` where little is known."""
        total = _SIGMA_PRIOR_N + self.degrees
        return math.sqrt((_SIGMA_PRIOR_N * sigma * sigma + self.squares) / total)


class LengthLearner:
    """What this process has learnt; times are Unix seconds, so that they survive a restart."""

    def __init__(self, most_applications: int = MOST_APPLICATIONS) -> None:
        self._most = most_applications
        self._models: dict[str, _ModelLevel] = {}
        # Least recently heard of first.
        self._applications: dict[str, dict[str, CensoredLengths]] = {}

    def __len__(self) -> int:
        return len(self._applications)

    def observe(
        self,
        model: str,
        application: str,
        base: AnswerLength,
        tokens: int,
        *,
        cut: bool,
        at_seconds: float,
    ) -> None:
        """Take the length of one answer; `base` is what was expected of it without learning.

        Where its limit `cut` the answer, `tokens` is that limit.
        """
        value = math.log(max(1, tokens)) - base.mu
        level = self._models.setdefault(model, _ModelLevel(base.mu))
        level.lengths.add(value, cut=cut, at_seconds=at_seconds)
        if level.lengths.is_due:
            level.lengths.estimate(LengthPrior(0.0, base.sigma, _MODEL_PRIOR_N, _MODEL_PRIOR_N))
        known = self._applications.pop(application, None)
        if known is None:
            known = {}
            while len(self._applications) >= self._most:
                del self._applications[next(iter(self._applications))]
        self._applications[application] = known
        own = known.get(model)
        if own is None:
            own = known[model] = CensoredLengths(_APPLICATION_MOST)
        own.add(value, cut=cut, at_seconds=at_seconds)
        if own.is_due:
            self._estimate(model, level, known, own, base)

    def predict(self, model: str, application: str, base: AnswerLength) -> LearntLength | None:
        """Return the distribution of an answer's tokens; None where nothing has been learnt."""
        level = self._models.get(model)
        known = self._applications.get(application)
        own = known.get(model) if known else None
        if own is not None and own.n >= _LEAST_N:
            mean, sigma, source = own.mean, own.sigma, APPLICATION
        elif known and (moved := self._compare_others(model, known)):
            own_level = level.lengths.mean if level else 0.0
            within = level.estimate_within(base.sigma) if level else base.sigma
            mean, sigma, source = own_level + moved, within, APPLICATION
        elif level is not None and level.lengths.n >= _LEAST_N:
            mean, sigma, source = level.lengths.mean, level.lengths.sigma, MODEL
        else:
            return None
        length = make_length((base.mu + mean, max(sigma, _LEAST_SIGMA)))
        return _make_learnt((length, source))

    def set_base(self, model: str, base_mu: float) -> None:
        """Note what is now expected without learning: what was learnt is kept in tokens."""
        level = self._models.get(model)
        if level is None:
            self._models[model] = _ModelLevel(base_mu)
            return
        by = level.base_mu - base_mu
        level.base_mu = base_mu
        if by:
            level.lengths.shift(by)
            for known in self._applications.values():
                if model in known:
                    known[model].shift(by)

    def to_state(self) -> dict[str, Any]:
        """Return everything as plain values, for a small file."""
        return {
            "models": {
                name: {
                    "base_mu": level.base_mu,
                    "squares": level.squares,
                    "degrees": level.degrees,
                    "lengths": level.lengths.to_list(),
                }
                for name, level in self._models.items()
            },
            "applications": {
                key: {model: own.to_list() for model, own in known.items()}
                for key, known in self._applications.items()
            },
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `to_state` gave. Raises ValueError, TypeError or KeyError."""
        models: dict[str, _ModelLevel] = {}
        for name, kept in state["models"].items():
            lengths = CensoredLengths.from_list(kept["lengths"], _MODEL_MOST)
            level = models[str(name)] = _ModelLevel(float(kept["base_mu"]), lengths)
            level.squares, level.degrees = float(kept["squares"]), float(kept["degrees"])
        applications = {
            str(key): {
                str(model): CensoredLengths.from_list(values, _APPLICATION_MOST)
                for model, values in known.items()
            }
            for key, known in list(state["applications"].items())[-self._most :]
        }
        self._models, self._applications = models, applications

    def _estimate(
        self,
        model: str,
        level: _ModelLevel,
        known: dict[str, CensoredLengths],
        own: CensoredLengths,
        base: AnswerLength,
    ) -> None:
        """Estimate one application on one model, and add its spread to the model's pool."""
        within = level.estimate_within(base.sigma)
        mean = level.lengths.mean + self._compare_others(model, known)
        prior = LengthPrior(mean, within, _APPLICATION_PRIOR_N, _SIGMA_PRIOR_N)
        degrees = max(0.0, own.n - 1.0)
        squares = own.estimate(prior)
        # The pool is an average over what it is told; a share of each telling keeps it moving.
        keep = 0.99
        share = 0.0 if own.n < 2.0 else 1.0 / max(1.0, own.n / 20.0)  # noqa: PLR2004
        level.squares = level.squares * keep + squares / max(1.0, degrees) * share
        level.degrees = level.degrees * keep + (share if degrees else 0.0)

    def _compare_others(self, model: str, known: dict[str, CensoredLengths]) -> float:
        """Return how an application differs from the usual on the other models that it asks."""
        total = weight = 0.0
        for other, lengths in known.items():
            if other != model and lengths.n > 0.0:
                trust = lengths.n / (lengths.n + 1.0)
                total += trust * (lengths.mean - self._models[other].lengths.mean)
                weight += trust
        return total / (weight + 0.25) if weight else 0.0
