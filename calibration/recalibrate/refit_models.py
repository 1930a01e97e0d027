"""From a window's sums and the live profile to new entries: what each model may take over.

    Prometheus -> blocks per deployment -> seconds, joules, output line, tokens -> RefitOutcome

Rules:
- Seconds and joules are accepted or rejected together: where a gate refuses one of them, the
  model's entry is kept. Too few requests (no meter, say), or too little gain, keep that live cost
  and refuse nothing.
- Output line and tokens (ratio and dense characters together) pass their own gates, and only join
  an entry whose costs were not refused.
- A prompt's own joules (`prefill`) come from profiling alone: they are written out of the live
  profile before its joules are replaced, and are never refitted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from calibration.recalibrate import gates, lengths, sums
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.gates import GateRefusal
from calibration.recalibrate.lengths import LengthFit
from calibration.recalibrate.limits import GateLimits, PriorSettings
from calibration.recalibrate.refit import CostRefit, choose_block_seconds, refit_cost
from calibration.recalibrate.solved import SingularMoments, compute_interval_factor
from calibration.recalibrate.sums import SumBlock
from calibration.recalibrate.token_scale import (
    RefittedTokenScale,
    check_token_scale,
    refit_token_scale,
)
from calibration.recalibrate.window_sums import DeploymentKey, WindowSums
from gateway.profile import (
    CostProfile,
    CostRegression,
    ModelProfile,
    OutputCoefficients,
    PrefillEnergy,
    TokenRatio,
)
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, PROMPT, ROWS

_COSTS = ("seconds", "joules")
_UNCHANGED_GATES = (gates.FEW, gates.GAIN, gates.ORDINARY)


@dataclass(frozen=True, slots=True)
class RefitSettings:
    """How to refit, and what must be passed."""

    limits: GateLimits = field(default_factory=GateLimits)
    prior_settings: PriorSettings = field(default_factory=PriorSettings)
    form: RegressionForm | None = None
    block_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RefitPart:
    """One thing that was to be refitted, with what came of it."""

    name: str
    block: SumBlock
    found: CostRefit | LengthFit | RefittedTokenScale | None
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
        holding = (gates.GAIN, gates.ORDINARY)
        return any(one.gate in holding for part in self.parts for one in part.refusals)


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
            _build_output_part(_merge_blocks(blocks, OUTPUT, "tokens"), settings.limits),
            _build_tokens_part(_merge_blocks(blocks, PROMPT, "tokens"), before.tokens, settings),
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
    block = _merge_blocks(blocks, COSTS, quantity.value)
    rows = _merge_blocks(blocks, ROWS, quantity.value)
    refusals = list(gates.check_block(block, settings.limits))
    if not refusals:
        refusals = list(gates.check_rows(rows, settings.limits))
    if not refusals and quantity is CostQuantity.JOULES:
        metered = _merge_blocks(blocks, METERED, quantity.value)
        refusals = list(gates.check_metered(metered, settings.limits))
    found = None
    if not refusals:
        rules = RefitRules(
            settings.form,
            settings.prior_settings,
            settings.limits.max_condition,
            settings.limits.max_change,
            settings.block_seconds,
        )
        try:
            found = refit_cost(quantity, block, live, rules, rows)
            refusals = list(gates.check_refit(found, settings.limits))
        except SingularMoments as error:
            refusals = [GateRefusal("condition", str(error))]
    return RefitPart(quantity.value, block, found, tuple(refusals))


def _build_output_part(block: SumBlock, limits: GateLimits) -> RefitPart:
    """Refit the lengths of answers, those that a limit cut counted as at least so long."""
    count = block.n + lengths.count_cut(block)
    if block.faults:
        return RefitPart("output", block, None, tuple(gates.check_block(block, limits)))
    if count < limits.min_requests or not block.n:
        text = f"{block.n} whole answers of {count}, at least {limits.min_requests} needed"
        return RefitPart(
            "output", block, None, (GateRefusal(gates.FEW, text, count, limits.min_requests),)
        )
    found = lengths.fit_lengths(block)
    half = (
        compute_interval_factor(max(1, found.n - 1)) * found.mu_error
    )  # of ln o, so a share of the length
    return RefitPart("output", block, found, tuple(gates.check_interval(1.0, half, limits)))


def _build_tokens_part(block: SumBlock, live: TokenRatio, settings: RefitSettings) -> RefitPart:
    """Refit the model's own tokens per token counted, and per digit or mark."""
    refusals = list(gates.check_block(block, settings.limits))
    scale = None
    if not refusals:
        seconds = settings.block_seconds or choose_block_seconds(block)
        try:
            scale = refit_token_scale(block, live, settings.limits, seconds)
            refusals = list(check_token_scale(scale, live, settings.limits))
        except SingularMoments as error:
            refusals = [GateRefusal("condition", str(error))]
    return RefitPart("tokens", block, scale, tuple(refusals))


def _build_entry(before: ModelProfile, parts: Sequence[RefitPart]) -> ModelProfile:
    changes: dict[str, Any] = {}
    for part in parts:
        if not part.gates_passed:
            continue
        if isinstance(part.found, CostRefit):
            changes[part.name] = _build_regression(part.found)
        elif isinstance(part.found, LengthFit):
            changes["output"] = _build_output(part.found)
        elif isinstance(part.found, RefittedTokenScale):
            changes["tokens"] = TokenRatio(part.found.ratio, part.found.per_dense_char)
    if CostQuantity.JOULES.value in changes:
        base, per_token = before.get_prefill_coefficients()
        changes["prefill"] = PrefillEnergy(base_joules=base, joules_per_token=per_token)
        changes["decode"] = before.decode_joules()
    return msgspec.structs.replace(before, **changes)


def _build_output(found: LengthFit) -> OutputCoefficients:
    """Return what the profile keeps of lengths: the log-normal, whatever the prompt."""
    return OutputCoefficients(
        form="lognormal",
        mu=float(min(max(found.mu, -5.0), 25.0)),
        sigma=float(min(max(found.sigma, 1e-6), 5.0)),
        n=found.n,
        censored=found.censored,
    )


def _build_regression(found: CostRefit) -> CostRegression:
    seen = {
        "tokens_in": found.observed_range.tokens_in,
        "tokens_out": found.observed_range.tokens_out,
    }
    running = found.observed_range.compute_running_range(found.quantity)
    if found.form.knows_load and running is not None:
        seen["running"] = running
    return CostRegression(
        form=found.form,
        coefficients=found.coefficients,
        covariance=found.covariance,
        n=found.solved.n,
        r2=found.solved.r2,
        fitted_range={name: list(ends) for name, ends in seen.items()},
    )
