"""From a window's sums and the live profile to new entries: what each model may take over.

    Prometheus -> blocks per deployment -> seconds, joules, output line, token ratio -> Outcome

Rules:
- Seconds and joules stand together: where one of them is refused by a gate, the model's entry
  stays as it is. Too few requests (no meter, say), or too little to gain, leave that cost as it
  was, and do not refuse.
- Output line and token ratio pass their own gates, and only join an entry whose costs were not
  refused.
- A prompt's own joules (`prefill`) come from profiling alone: they are written out of the live
  profile before its joules are replaced, and are never refitted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from calibration.recalibrate import gates, sums
from calibration.recalibrate.gates import Limits, Refusal
from calibration.recalibrate.moments import Moments, Singular, quantile
from calibration.recalibrate.prior import Few
from calibration.recalibrate.prometheus import Prometheus
from calibration.recalibrate.refit import Refit, refit
from calibration.recalibrate.sums import LOAD, OUTPUT, PROMPT, TOKENS, Block
from gateway.profile import ModelProfile, Output, Prefill, Profile, Regression, Tokens
from gateway.scheduling.cost import Form, Quantity

Key = tuple[str, str]
"""Model and deployment, as the gateway labels them."""
_COSTS = ("seconds", "joules")
_LEFT = (gates.FEW, gates.GAIN)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to refit, and what must be passed."""

    limits: Limits = field(default_factory=Limits)
    few: Few = field(default_factory=Few)
    form: Form | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """All sums of a window: the blocks of each deployment, by (basis, quantity)."""

    blocks: Mapping[Key, Mapping[tuple[str, str], Block]]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Tokens out = slope x tokens in + intercept, and half the 95% interval at the mean prompt."""

    slope: float
    intercept: float
    r2: float
    mean_in: float
    half: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """The model's prompt tokens per token that the gateway counted, and half its 95% interval."""

    value: float
    half: float


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that was to be refitted, with what came of it."""

    name: str
    block: Block
    found: Refit | Line | Ratio | None
    refusals: tuple[Refusal, ...]

    @property
    def passed(self) -> bool:
        """Whether it may replace the live one."""
        return self.found is not None and not self.refusals

    @property
    def left(self) -> bool:
        """Whether it stays as it was for no fault: too few requests, or nothing to gain."""
        return bool(self.refusals) and all(one.gate in _LEFT for one in self.refusals)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one profile key."""

    key: str
    deployments: tuple[Key, ...]
    parts: tuple[Part, ...]
    entry: ModelProfile | None
    """The new entry, None where the live one stays."""

    @property
    def refused(self) -> bool:
        """Whether a cost failed a gate for a fault."""
        return any(part.refusals and not part.left for part in self.parts if part.name in _COSTS)

    @property
    def holds(self) -> bool:
        """Whether a cost stays because the live profile is as good."""
        return any(one.gate == gates.GAIN for part in self.parts for one in part.refusals)


def gather(server: Prometheus, window: str, at: float) -> Window:
    """Read all sums of the window that ends at `at` (Unix seconds). Raises PrometheusError."""
    blocks: dict[Key, dict[tuple[str, str], Block]] = {}
    warnings: list[str] = []

    def read(basis: str, quantity: str) -> bool:
        found = server.samples(sums.METRIC, window, at, basis=basis, quantity=quantity)
        warnings.extend(found.warned)
        for key, block in sums.read(basis, found.series).items():
            blocks.setdefault(key, {})[basis, quantity] = block
        return bool(found.series)

    for quantity in _COSTS:
        # The block of `load` holds all that the one of `tokens` does.
        if not read(LOAD, quantity):
            read(TOKENS, quantity)
    for basis in (OUTPUT, PROMPT):
        read(basis, "tokens")
    return Window(blocks, tuple(dict.fromkeys(warnings)))


def recalibrate(
    window: Window, live: Profile, keys: Mapping[str, Sequence[Key]], settings: Settings
) -> list[Outcome]:
    """Refit each profile key from the deployments that `keys` gives it."""
    outcomes = []
    for key, deployments in keys.items():
        before = live.model(key)
        blocks = [window.blocks[one] for one in deployments]
        costs = [
            _cost(Quantity(name), blocks, _regression(before, name), settings) for name in _COSTS
        ]
        parts = [
            *costs,
            _output(_joined(blocks, OUTPUT, "tokens"), before, costs[0].block, settings.limits),
            _ratio(_joined(blocks, PROMPT, "tokens"), before, settings.limits),
        ]
        outcome = Outcome(key, tuple(deployments), tuple(parts), None)
        if not outcome.refused and any(part.passed for part in costs):
            outcome = Outcome(key, outcome.deployments, outcome.parts, _entry(before, parts))
        outcomes.append(outcome)
    return outcomes


def _regression(model: ModelProfile, name: str) -> Regression:
    return model.seconds if name == Quantity.SECONDS.value else model.joules


def _joined(blocks: Iterable[Mapping[tuple[str, str], Block]], basis: str, quantity: str) -> Block:
    found = [one[basis, quantity] for one in blocks if (basis, quantity) in one]
    return sums.add(found) if found else sums.empty(basis)


def _cost(
    quantity: Quantity,
    blocks: Sequence[Mapping[tuple[str, str], Block]],
    live: Regression,
    settings: Settings,
) -> Part:
    block = _joined(blocks, LOAD, quantity.value)
    if not block.n and not block.faults:
        tokens = _joined(blocks, TOKENS, quantity.value)
        block = tokens if tokens.n else block
    refusals = list(gates.of_block(block, settings.limits))
    found = None
    if not refusals:
        try:
            found = refit(
                quantity,
                block,
                live,
                form=settings.form,
                few=settings.few,
                max_condition=settings.limits.max_condition,
            )
            refusals = list(gates.of_refit(found, settings.limits))
        except Singular as error:
            refusals = [Refusal("condition", str(error))]
    return Part(quantity.value, block, found, tuple(refusals))


def _output(block: Block, live: ModelProfile, seconds: Block, limits: Limits) -> Part:
    """Refit tokens out on tokens in, over the answers that no limit cut."""
    refusals = list(gates.of_block(block, limits))
    whole = block.n / seconds.n if seconds.n else 1.0
    if not refusals and whole < gates.LEAST_WHOLE:
        text = (
            f"only {whole:.0%} of the answers were not cut by a limit, at least "
            f"{gates.LEAST_WHOLE:.0%} needed: those left are the short ones"
        )
        refusals = [Refusal("cut", text, whole, gates.LEAST_WHOLE)]
    line = None
    if not refusals:
        table = Moments.of(block, ("n", "i"), "o")
        try:
            solved = table.solve()
        except Singular as error:
            return Part("output", block, None, (Refusal("condition", str(error)),))
        intercept, slope = (float(b) for b in solved.coefficients)
        mean = table.mean
        half = solved.half(mean)
        line = Line(slope, intercept, solved.r2, float(mean[1]), half)
        expected, guess = table.mean_y, live.output_model()
        refusals = [
            *gates.of_interval(expected, half, limits),
            *gates.of_change(expected, guess.slope * line.mean_in + guess.intercept, limits),
        ]
    return Part("output", block, line, tuple(refusals))


def _ratio(block: Block, live: ModelProfile, limits: Limits) -> Part:
    """Refit the token ratio: sum over sum, its error that of a ratio of cluster totals."""
    refusals = list(gates.of_block(block, limits))
    ratio = None
    if not refusals:
        theirs, ours = block.of("i"), block.of("e")
        value = float(theirs.sum() / ours.sum())
        count = len(ours)
        spread = float(np.sum((theirs - value * ours) ** 2)) * count / (count - 1.0)
        half = quantile(count) * spread**0.5 / float(ours.sum())
        ratio = Ratio(value, half)
        refusals = [
            *gates.of_interval(value, half, limits),
            *gates.of_change(value, live.tokens.ratio, limits),
        ]
    return Part("tokens", block, ratio, tuple(refusals))


def _entry(before: ModelProfile, parts: Sequence[Part]) -> ModelProfile:
    changes: dict[str, Any] = {}
    for part in parts:
        if not part.passed:
            continue
        if isinstance(part.found, Refit):
            changes[part.name] = _fitted(part.found)
        elif isinstance(part.found, Line):
            changes["output"] = Output(part.found.slope, part.found.intercept)
        elif isinstance(part.found, Ratio):
            changes["tokens"] = Tokens(part.found.value)
    if Quantity.JOULES.value in changes:
        base, per_token = before.prefill_joules()
        changes["prefill"] = Prefill(base_joules=base, joules_per_token=per_token)
        changes["decode"] = before.decode_joules()
    return msgspec.structs.replace(before, **changes)


def _fitted(found: Refit) -> Regression:
    seen = {"tokens_in": found.seen.tokens_in, "tokens_out": found.seen.tokens_out}
    running = found.seen.running(found.quantity)
    if found.form is Form.LOAD and running is not None:
        seen["running"] = running
    return Regression(
        form=found.form,
        coefficients=found.coefficients,
        covariance=found.covariance,
        n=found.solved.n,
        r2=found.solved.r2,
        rmse=found.solved.rmse,
        fitted_range={name: list(ends) for name, ends in seen.items()},
    )
