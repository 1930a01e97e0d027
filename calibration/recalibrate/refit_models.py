"""From a window's sums and the live profile to new entries: what each model may take over.

    Prometheus -> blocks per deployment -> seconds, joules, output line, token ratio -> RefitOutcome

Rules:
- Seconds and joules are accepted or rejected together: where a gate refuses one of them, the
  model's entry is kept. Too few requests (no meter, say), or too little gain, keep that live cost
  and refuse nothing.
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
from calibration.recalibrate.gates import GateLimits, GateRefusal
from calibration.recalibrate.moments import ClusterMoments, SingularMoments, compute_interval_factor
from calibration.recalibrate.prior import PriorSettings
from calibration.recalibrate.prometheus import PrometheusClient
from calibration.recalibrate.refit import CostRefit, refit_cost
from calibration.recalibrate.sums import LOAD, OUTPUT, PROMPT, TOKENS, SumBlock
from gateway.profile import (
    CostProfile,
    CostRegression,
    ModelProfile,
    OutputCoefficients,
    PrefillEnergy,
    TokenRatio,
)
from gateway.scheduling.cost import CostQuantity, RegressionForm

DeploymentKey = tuple[str, str]
"""Model and deployment, as the gateway labels them."""
_COSTS = ("seconds", "joules")
_UNCHANGED_GATES = (gates.FEW, gates.GAIN)


@dataclass(frozen=True, slots=True)
class RefitSettings:
    """How to refit, and what must be passed."""

    limits: GateLimits = field(default_factory=GateLimits)
    prior_settings: PriorSettings = field(default_factory=PriorSettings)
    form: RegressionForm | None = None


@dataclass(frozen=True, slots=True)
class WindowSums:
    """All sums of a window: the blocks of each deployment, by (basis, quantity)."""

    blocks: Mapping[DeploymentKey, Mapping[tuple[str, str], SumBlock]]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefittedOutputLine:
    """Tokens out = slope x tokens in + intercept, and half the 95% interval at the mean prompt."""

    slope: float
    intercept: float
    r2: float
    mean_in: float
    half: float


@dataclass(frozen=True, slots=True)
class RefittedTokenRatio:
    """The model's prompt tokens per token that the gateway counted, and half its 95% interval."""

    value: float
    half: float


@dataclass(frozen=True, slots=True)
class RefitPart:
    """One thing that was to be refitted, with what came of it."""

    name: str
    block: SumBlock
    found: CostRefit | RefittedOutputLine | RefittedTokenRatio | None
    refusals: tuple[GateRefusal, ...]

    @property
    def gates_passed(self) -> bool:
        """Whether it may replace the live one."""
        return self.found is not None and not self.refusals

    @property
    def unchanged(self) -> bool:
        """Whether it is kept without a failed gate: too few requests, or too little gain."""
        return bool(self.refusals) and all(one.gate in _UNCHANGED_GATES for one in self.refusals)


@dataclass(frozen=True, slots=True)
class RefitOutcome:
    """The outcome of one profile key."""

    key: str
    deployments: tuple[DeploymentKey, ...]
    parts: tuple[RefitPart, ...]
    entry: ModelProfile | None
    """The new entry, None where the live one stays."""

    @property
    def refused(self) -> bool:
        """Whether a cost failed a gate for a fault."""
        return any(
            part.refusals and not part.unchanged for part in self.parts if part.name in _COSTS
        )

    @property
    def live_profile_kept(self) -> bool:
        """Whether a cost stays because the live profile is as good."""
        return any(one.gate == gates.GAIN for part in self.parts for one in part.refusals)


def gather_sums(server: PrometheusClient, window: str, at: float) -> WindowSums:
    """Read all sums of the window that ends at `at` (Unix seconds). Raises PrometheusError."""
    blocks: dict[DeploymentKey, dict[tuple[str, str], SumBlock]] = {}
    warnings: list[str] = []

    def read_basis(basis: str, quantity: str) -> bool:
        found = server.query_samples(sums.SUMS_METRIC, window, at, basis=basis, quantity=quantity)
        warnings.extend(found.attributed_warnings)
        for key, block in sums.read_blocks(basis, found.series).items():
            blocks.setdefault(key, {})[basis, quantity] = block
        return bool(found.series)

    for quantity in _COSTS:
        # The block of `load` holds all that the one of `tokens` does.
        if not read_basis(LOAD, quantity):
            read_basis(TOKENS, quantity)
    for basis in (OUTPUT, PROMPT):
        read_basis(basis, "tokens")
    return WindowSums(blocks, tuple(dict.fromkeys(warnings)))


def recalibrate_models(
    window: WindowSums,
    live: CostProfile,
    keys: Mapping[str, Sequence[DeploymentKey]],
    settings: RefitSettings,
) -> list[RefitOutcome]:
    """Refit each profile key from the deployments that `keys` gives it."""
    outcomes = []
    for key, deployments in keys.items():
        before = live.get_model(key)
        blocks = [window.blocks[one] for one in deployments]
        costs = [
            _build_cost_part(CostQuantity(name), blocks, _select_regression(before, name), settings)
            for name in _COSTS
        ]
        parts = [
            *costs,
            _build_output_part(
                _merge_blocks(blocks, OUTPUT, "tokens"), before, costs[0].block, settings.limits
            ),
            _build_ratio_part(_merge_blocks(blocks, PROMPT, "tokens"), before, settings.limits),
        ]
        outcome = RefitOutcome(key, tuple(deployments), tuple(parts), None)
        if not outcome.refused and any(part.gates_passed for part in costs):
            outcome = RefitOutcome(
                key, outcome.deployments, outcome.parts, _build_entry(before, parts)
            )
        outcomes.append(outcome)
    return outcomes


def _select_regression(model: ModelProfile, name: str) -> CostRegression:
    return model.seconds if name == CostQuantity.SECONDS.value else model.joules


def _merge_blocks(
    blocks: Iterable[Mapping[tuple[str, str], SumBlock]], basis: str, quantity: str
) -> SumBlock:
    found = [one[basis, quantity] for one in blocks if (basis, quantity) in one]
    return sums.merge_blocks(found) if found else sums.create_empty_block(basis)


def _build_cost_part(
    quantity: CostQuantity,
    blocks: Sequence[Mapping[tuple[str, str], SumBlock]],
    live: CostRegression,
    settings: RefitSettings,
) -> RefitPart:
    block = _merge_blocks(blocks, LOAD, quantity.value)
    if not block.n and not block.faults:
        tokens = _merge_blocks(blocks, TOKENS, quantity.value)
        block = tokens if tokens.n else block
    refusals = list(gates.check_block(block, settings.limits))
    found = None
    if not refusals:
        try:
            found = refit_cost(
                quantity,
                block,
                live,
                form=settings.form,
                few=settings.prior_settings,
                max_condition=settings.limits.max_condition,
            )
            refusals = list(gates.check_refit(found, settings.limits))
        except SingularMoments as error:
            refusals = [GateRefusal("condition", str(error))]
    return RefitPart(quantity.value, block, found, tuple(refusals))


def _build_output_part(
    block: SumBlock, live: ModelProfile, seconds: SumBlock, limits: GateLimits
) -> RefitPart:
    """Refit tokens out on tokens in, over the answers that no limit cut."""
    if live.to_output_model().mu is not None:
        return RefitPart("output", block, None, (gates.NO_LINE,))
    refusals = list(gates.check_block(block, limits))
    whole = block.n / seconds.n if seconds.n else 1.0
    if not refusals and whole < gates.MIN_UNCUT_SHARE:
        text = (
            f"only {whole:.0%} of the answers were not cut by a limit, at least "
            f"{gates.MIN_UNCUT_SHARE:.0%} needed: those left are the short ones"
        )
        refusals = [GateRefusal("cut", text, whole, gates.MIN_UNCUT_SHARE)]
    line = None
    if not refusals:
        table = ClusterMoments.from_block(block, ("n", "i"), "o")
        try:
            solved = table.solve_least_squares()
        except SingularMoments as error:
            return RefitPart("output", block, None, (GateRefusal("condition", str(error)),))
        intercept, slope = (float(b) for b in solved.coefficients)
        mean = table.column_means
        half = solved.compute_half_interval(mean)
        line = RefittedOutputLine(slope, intercept, solved.r2, float(mean[1]), half)
        expected, guess = table.mean_y, live.to_output_model()
        refusals = [
            *gates.check_interval(expected, half, limits),
            *gates.check_change(expected, guess.slope * line.mean_in + guess.intercept, limits),
        ]
    return RefitPart("output", block, line, tuple(refusals))


def _build_ratio_part(block: SumBlock, live: ModelProfile, limits: GateLimits) -> RefitPart:
    """Refit the token ratio: sum over sum, its error that of a ratio of cluster totals."""
    refusals = list(gates.check_block(block, limits))
    ratio = None
    if not refusals:
        theirs, ours = block.get_term("i"), block.get_term("e")
        value = float(theirs.sum() / ours.sum())
        count = len(ours)
        spread = float(np.sum((theirs - value * ours) ** 2)) * count / (count - 1.0)
        half = compute_interval_factor(count) * spread**0.5 / float(ours.sum())
        ratio = RefittedTokenRatio(value, half)
        refusals = [
            *gates.check_interval(value, half, limits),
            *gates.check_change(value, live.tokens.ratio, limits),
        ]
    return RefitPart("tokens", block, ratio, tuple(refusals))


def _build_entry(before: ModelProfile, parts: Sequence[RefitPart]) -> ModelProfile:
    changes: dict[str, Any] = {}
    for part in parts:
        if not part.gates_passed:
            continue
        if isinstance(part.found, CostRefit):
            changes[part.name] = _build_regression(part.found)
        elif isinstance(part.found, RefittedOutputLine):
            changes["output"] = OutputCoefficients(part.found.slope, part.found.intercept)
        elif isinstance(part.found, RefittedTokenRatio):
            changes["tokens"] = TokenRatio(part.found.value)
    if CostQuantity.JOULES.value in changes:
        base, per_token = before.get_prefill_coefficients()
        changes["prefill"] = PrefillEnergy(base_joules=base, joules_per_token=per_token)
        changes["decode"] = before.decode_joules()
    return msgspec.structs.replace(before, **changes)


def _build_regression(found: CostRefit) -> CostRegression:
    seen = {
        "tokens_in": found.observed_range.tokens_in,
        "tokens_out": found.observed_range.tokens_out,
    }
    running = found.observed_range.compute_running_range(found.quantity)
    if found.form is RegressionForm.LOAD and running is not None:
        seen["running"] = running
    return CostRegression(
        form=found.form,
        coefficients=found.coefficients,
        covariance=found.covariance,
        n=found.solved.n,
        r2=found.solved.r2,
        rmse=found.solved.rmse,
        fitted_range={name: list(ends) for name, ends in seen.items()},
    )
