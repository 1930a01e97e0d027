"""Which form a window's sums carry: what is tried, what can be told, whose load coefficient.

`refit` has the rules.
"""

from dataclasses import dataclass, field

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate import prior as pull
from calibration.recalibrate.limits import PriorSettings
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.prior import LOAD_AT
from calibration.recalibrate.solved import (
    ClusterRobustFit,
    CoefficientPrior,
    SingularMoments,
    compute_interval_factor,
)
from calibration.recalibrate.variants import (
    BOTH_AT,
    LOAD_COLUMN,
    TOKENS_IN_AT,
    TOKENS_OUT_AT,
    TOKENS_OUT_COLUMN,
    TWINS,
    FormVariant,
    ObservedRange,
    build_base_columns,
    find_wrong_sign,
    list_variants,
)
from gateway.profile import CostRegression
from gateway.scheduling.cost import RegressionForm

MIN_TOLERANCE = 0.02
"""Share of the load column's squares that the other columns must leave over."""
MIN_BETWEEN_SHARE = 0.5
"""Share of its variation that must lie between blocks before a live coefficient of load goes."""
_CONFIDENCE = 0.995
"""Of the interval of a new coefficient of load outside which the live one must lie to be replaced.

A new one comes, where the live one is right, from those windows alone that speak against it: from
5% of them at 0.95, and those 5% are then missing in the coverage of what is reported.
"""
_LOWER = 0.99
"""The loss that another form of as many terms must get below, as a share."""


@dataclass(frozen=True, slots=True)
class RefitRules:
    """How a refit is made: the form (None: the best that stands), and its bounds."""

    form: RegressionForm | None = None
    prior_settings: PriorSettings = field(default_factory=PriorSettings)
    max_condition: float = 300.0
    max_change: float = 3.0
    block_seconds: float | None = None
    """Length of a cluster; None: by the window's length, from 5 to 15 minutes."""


class FormChoice:
    """Everything that tells a variant of the form from another in one window."""

    def __init__(
        self,
        live: CostRegression,
        rules: RefitRules,
        whole: ClusterMoments,
        level: tuple[float, Floats],
        seen: ObservedRange,
    ) -> None:
        """`level` is what brings the live profile to the window's mean, and each block's error."""
        factor, shifts = level
        self.live = live
        self.rules = rules
        self.moments = whole
        self.level = factor
        self.shifts = shifts
        self.observed_range = seen
        self.between = whole.compute_between_share(LOAD_COLUMN, per=TOKENS_OUT_COLUMN)
        self.rejected_forms: list[str] = []

    def choose_variant(self) -> tuple[FormVariant, ClusterRobustFit, str | None]:
        """Return the best variant that stands, or the last that was tried with what is wrong.

        Raises SingularMoments where none could be solved.
        """
        free = False  # whether a token in was found to cost nothing, or less by chance
        last: tuple[FormVariant, ClusterRobustFit, str | None] | None = None
        for variant in list_variants(self.rules.form, self.live):
            if TOKENS_IN_AT not in variant.used and not free:
                continue
            try:
                self._check_identifiable(variant)
                solved = self.solve_variant(variant, self.moments)
            except SingularMoments as error:
                self.rejected_forms.append(f"{variant}: {error}")
                continue
            wrong = find_wrong_sign(variant, solved, self.observed_range)
            last = (variant, solved, wrong)
            if wrong is None:
                return self._prefer_twin_form(variant, solved)
            if TOKENS_IN_AT in variant.used and BOTH_AT not in variant.used:
                free = bool(solved.high[TOKENS_IN_AT] >= 0.0)
            self.rejected_forms.append(f"{variant}: {wrong}")
        if last is None:
            raise SingularMoments("; ".join(self.rejected_forms))
        return last

    def solve_variant(self, variant: FormVariant, part: ClusterMoments) -> ClusterRobustFit:
        """Solve a variant on (part of) the window. Raises SingularMoments."""
        chosen = part.combine_columns(variant.columns)
        weight = self.rules.prior_settings.compute_weight(self.moments.n)
        if variant.keep_load and weight <= 0.0:
            own = self.live.coefficients[LOAD_AT]
            mine = len(self.shifts) == len(part.xx)
            shifts = own * self.shifts if mine else np.zeros(len(part.xx))
            variance = self.level**2 * pull.get_live_variance(self.live, LOAD_AT)
            return chosen.solve_with_fixed_coefficient(
                variant.used.index(LOAD_AT), self.level * own, shifts, variance
            ).smooth_over_time()
        prior: CoefficientPrior | None = pull.build_prior(
            chosen, variant.form, variant.used, self.live, self.level, weight,
            keep_load=variant.keep_load,
        )  # fmt: skip
        if prior is None and self._is_grouped(variant):
            at, per = (variant.used.index(place) for place in (LOAD_AT, TOKENS_OUT_AT))
            grouped = chosen.instrument_column(at, per=per)
            return grouped.solve_least_squares(plain=chosen).smooth_over_time()
        return chosen.solve_least_squares(prior).smooth_over_time()

    def _is_grouped(self, variant: FormVariant) -> bool:
        """Tell whether the load's coefficient comes from differences between blocks alone."""
        if LOAD_AT not in variant.used or variant.keep_load:
            return False
        return self.between >= MIN_BETWEEN_SHARE

    def estimate_attenuation(self, variant: FormVariant, load: float) -> float:
        """Return what noise in the reading of the load may change, `load` being z over y.

        Noise draws the least squares coefficient to zero, and neither the live one nor the one from
        differences between blocks: by how much they differ, times the load's part in the cost.
        """
        if LOAD_AT not in variant.used or not (variant.keep_load or self._is_grouped(variant)):
            return 0.0
        at = variant.used.index(LOAD_AT)
        chosen = self.moments.combine_columns(variant.columns)
        try:
            drawn = float(chosen.solve_least_squares().coefficients[at])
            clear = float(self.solve_variant(variant, self.moments).coefficients[at])
        except (SingularMoments, np.linalg.LinAlgError):
            return 0.0
        return abs(clear - drawn) * load

    def _prefer_twin_form(
        self, variant: FormVariant, solved: ClusterRobustFit
    ) -> tuple[FormVariant, ClusterRobustFit, str | None]:
        """Return the variant, or the one that reads context in its place where it fits better."""
        twin = TWINS.get(variant.form)
        if twin is None or self.rules.form is not None or BOTH_AT not in variant.used:
            return variant, solved, None
        other = FormVariant(twin, variant.used, variant.keep_load)
        try:
            self._check_identifiable(other)
            found = self.solve_variant(other, self.moments)
        except SingularMoments:
            return variant, solved, None
        losses = [
            self.moments.sum_squared_residuals(one.columns @ fitted.coefficients)
            for one, fitted in ((variant, solved), (other, found))
        ]
        if (
            losses[1] < _LOWER * losses[0]
            and find_wrong_sign(other, found, self.observed_range) is None
        ):
            self.rejected_forms.append(f"{variant}: {twin.value} has the lower loss")
            return other, found, None
        return variant, solved, None

    def _check_identifiable(self, variant: FormVariant) -> None:
        """Raises SingularMoments where the window cannot tell the columns apart."""
        fitted = [at for at in variant.used if at != LOAD_AT or not variant.keep_load]
        chosen = self.moments.combine_columns(build_base_columns(variant.form)[:, fitted])
        if LOAD_AT in fitted:
            if chosen.compute_tolerance(fitted.index(LOAD_AT)) < MIN_TOLERANCE:
                raise SingularMoments("load hardly varied by itself")
            if self.live.form.knows_load:
                if self.between < MIN_BETWEEN_SHARE:
                    raise SingularMoments(
                        f"only {self.between:.0%} of the load's variation is between blocks"
                    )
                self._check_load_differs(variant)
        condition = chosen.compute_condition()
        if condition > self.rules.max_condition:
            most = self.rules.max_condition
            raise SingularMoments(f"condition number {condition:.3g}, at most {most:g}")

    def _check_load_differs(self, variant: FormVariant) -> None:
        """Raises SingularMoments where the live profile's coefficient of load may still hold."""
        solved = self.solve_variant(variant, self.moments)
        at = variant.used.index(LOAD_AT)
        kept = self.level * self.live.coefficients[LOAD_AT]
        reach = compute_interval_factor(solved.freedom, _CONFIDENCE) * solved.standard_errors[at]
        if abs(kept - solved.coefficients[at]) <= reach:
            raise SingularMoments(
                f"the live coefficient of load is in the {_CONFIDENCE:.1%} interval of a new one"
            )
