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

from calibration.recalibrate import gates, lengths, sums
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.gates import Limits, Refusal
from calibration.recalibrate.lengths import LengthFit
from calibration.recalibrate.prior import Few
from calibration.recalibrate.prometheus import Prometheus, PrometheusError
from calibration.recalibrate.refit import Refit, refit
from calibration.recalibrate.solved import Singular, quantile
from calibration.recalibrate.sums import Block
from gateway.profile import ModelProfile, Output, Prefill, Profile, Regression, Tokens
from gateway.scheduling.cost import Form, Quantity
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, PROMPT, ROWS

Key = tuple[str, str]
"""Model and deployment, as the gateway labels them."""
_COSTS = ("seconds", "joules")
_LEFT = (gates.FEW, gates.GAIN, gates.ORDINARY)
INFO = "joulegate_profile_info"
_INFO_NAMES = frozenset({"__name__", "model", "version"})


@dataclass(frozen=True, slots=True)
class Settings:
    """How to refit, and what must be passed."""

    limits: Limits = field(default_factory=Limits)
    few: Few = field(default_factory=Few)
    form: Form | None = None
    block_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """All sums of a window: the blocks of each deployment, by (basis, quantity)."""

    blocks: Mapping[Key, Mapping[tuple[str, str], Block]]
    warnings: tuple[str, ...]


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
    found: Refit | LengthFit | Ratio | None
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
        holding = (gates.GAIN, gates.ORDINARY)
        return any(one.gate in holding for part in self.parts for one in part.refusals)


def gather(server: Prometheus, window: str, at: float, version: str) -> Window:
    """Read all sums of the window that ends at `at` (Unix seconds). Raises PrometheusError.

    Rows are winsorised and weighted around the prediction of their moment, so what an instance
    summed up before it took the live `version` into force is left out, where that is known.
    """
    blocks: dict[Key, dict[tuple[str, str], Block]] = {}
    warnings: list[str] = []
    since = _taken_into_force(server, window, at, version)

    def read(basis: str, quantity: str) -> None:
        found = server.samples(sums.METRIC, window, at, basis=basis, quantity=quantity)
        warnings.extend(found.warned)
        for key, block in sums.read(basis, found.series, since).items():
            blocks.setdefault(key, {})[basis, quantity] = block
            warnings.extend(
                f"{key[1]}: {where} shows the same gateway as another series (two Prometheus "
                "servers?) and was left out"
                for where in block.duplicates
            )

    for quantity in _COSTS:
        read(COSTS, quantity)
        read(ROWS, quantity)
    read(METERED, Quantity.JOULES.value)
    for basis in (OUTPUT, PROMPT):
        read(basis, "tokens")
    return Window(blocks, tuple(dict.fromkeys(warnings)))


def _taken_into_force(server: Prometheus, window: str, at: float, version: str) -> dict[str, float]:
    """Return when each instance was first seen with this version of the profile."""
    try:
        found = server.samples(INFO, window, at, version=version)
    except PrometheusError as error:
        if error.code is None:
            raise
        return {}  # a server that has only the sums
    since: dict[str, float] = {}
    for one in found.series:
        times = [when for when, value in one.values if float(value) > 0.0]
        if times:
            where = one.instance(_INFO_NAMES)
            since[where] = min(times[0], since.get(where, times[0]))
    return since


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
            _output(_joined(blocks, OUTPUT, "tokens"), settings.limits),
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
    block = _joined(blocks, COSTS, quantity.value)
    rows = _joined(blocks, ROWS, quantity.value)
    refusals = list(gates.of_block(block, settings.limits))
    if not refusals:
        refusals = list(gates.of_rows(rows, settings.limits))
    if not refusals and quantity is Quantity.JOULES:
        metered = _joined(blocks, METERED, quantity.value)
        refusals = list(gates.of_metered(metered, settings.limits))
    found = None
    if not refusals:
        rules = RefitRules(
            settings.form,
            settings.few,
            settings.limits.max_condition,
            settings.limits.max_change,
            settings.block_seconds,
        )
        try:
            found = refit(quantity, block, live, rules, rows)
            refusals = list(gates.of_refit(found, settings.limits))
        except Singular as error:
            refusals = [Refusal("condition", str(error))]
    return Part(quantity.value, block, found, tuple(refusals))


def _output(block: Block, limits: Limits) -> Part:
    """Refit the lengths of answers, those that a limit cut counted as at least so long."""
    count = block.n + lengths.count_cut(block)
    if block.faults:
        return Part("output", block, None, tuple(gates.of_block(block, limits)))
    if count < limits.min_requests or not block.n:
        text = f"{block.n} whole answers of {count}, at least {limits.min_requests} needed"
        return Part("output", block, None, (Refusal(gates.FEW, text, count, limits.min_requests),))
    found = lengths.fit(block)
    half = quantile(max(2, found.n)) * found.mu_error  # of ln o, so a share of the length
    return Part("output", block, found, tuple(gates.of_interval(1.0, half, limits)))


def _ratio(block: Block, live: ModelProfile, limits: Limits) -> Part:
    """Refit the token ratio: sum over sum, its error that of a ratio of cluster totals."""
    refusals = list(gates.of_block(block, limits))
    ratio = None
    if not refusals:
        theirs, ours = block.of("i"), block.of("e")
        value = float(theirs.sum() / ours.sum())
        count = len(ours)
        spread = float(((theirs - value * ours) ** 2).sum()) * count / (count - 1.0)
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
        elif isinstance(part.found, LengthFit):
            changes["output"] = _learnt_output(part.found)
        elif isinstance(part.found, Ratio):
            changes["tokens"] = Tokens(part.found.value)
    if Quantity.JOULES.value in changes:
        base, per_token = before.prefill_joules()
        changes["prefill"] = Prefill(base_joules=base, joules_per_token=per_token)
    return msgspec.structs.replace(before, **changes)


def _learnt_output(found: LengthFit) -> Output:
    """Return what the profile keeps of lengths: the mean of the log-normal, whatever the prompt."""
    return Output(0.0, found.mean)


def _fitted(found: Refit) -> Regression:
    seen = {"tokens_in": found.seen.tokens_in, "tokens_out": found.seen.tokens_out}
    running = found.seen.running(found.quantity)
    if found.form.knows_load and running is not None:
        seen["running"] = running
    return Regression(
        form=found.form,
        coefficients=found.coefficients,
        covariance=found.covariance,
        n=found.solved.n,
        r2=found.solved.r2,
        fitted_range={name: list(ends) for name, ends in seen.items()},
    )
