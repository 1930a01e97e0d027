"""What `joulegate recalibrate` found, as plain values; docs/recalibration.md explains it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from calibration.recalibrate.holdout import HoldoutComparison
from calibration.recalibrate.lengths import LengthFit
from calibration.recalibrate.refit import CostRefit
from calibration.recalibrate.refit_models import RefitOutcome, RefitPart
from calibration.recalibrate.token_scale import RefittedTokenScale
from calibration.stats.design import list_terms
from gateway.profile import CostProfile, CostRegression


def build_report(
    outcomes: Sequence[RefitOutcome],
    warnings: Sequence[str],
    live: CostProfile,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report as plain values; shares are shares (0.1 = 10%)."""
    return {
        **source,
        "warnings": list(warnings),
        "models": [
            {
                "model": one.key,
                "deployments": [deployment for _, deployment in one.deployments],
                "adopted": one.entry is not None,
                "parts": [
                    _build_part(part, find_live_regression(one, part, live)) for part in one.parts
                ],
            }
            for one in outcomes
        ],
    }


def build_provenance(part: RefitPart) -> dict[str, Any]:
    """Return what the profile keeps of a refitted part; what says nothing is left out."""
    block, found = part.block, part.found
    said: dict[str, Any] = {
        "requests": block.n,
        "instances": block.instances,
        "scrapes": len(block.clusters),
        "resets": block.resets,
    }
    if isinstance(found, CostRefit):
        said |= {
            "blocks": found.holdout.blocks,
            "condition": found.solved.condition,
            "bias": found.drift.relative_bias,
            "prior_share": max(found.solved.prior_share.tolist()),
            "b4_kept": found.kept_load,
            "held_out": _build_held_out(found.holdout),
            "step": found.step,
        }
    elif isinstance(found, LengthFit):
        said |= {"sigma": found.sigma, "censored": found.censored}
    said["refused"] = [msgspec.to_builtins(one) for one in part.refusals]
    return {"adopted": part.gates_passed, **{name: value for name, value in said.items() if value}}


def _build_held_out(held: HoldoutComparison) -> dict[str, float]:
    return {
        "gain": held.gain,
        "standard_error": held.error,
        "live_off_by": held.live_error,
        "ordinary": held.ordinary,
    }


def find_live_regression(
    outcome: RefitOutcome, part: RefitPart, live: CostProfile
) -> CostRegression | None:
    """Return the live cost that a part was to replace, None where it is no cost."""
    model = live.get_model(outcome.key)
    return {"seconds": model.seconds, "joules": model.joules}.get(part.name)


def _build_part(part: RefitPart, live: CostRegression | None) -> dict[str, Any]:
    block = part.block
    return {
        "name": part.name,
        "adopted": part.gates_passed,
        "requests": block.n,
        "scrapes": len(block.clusters),
        "instances": block.instances,
        "resets": block.resets,
        "incomplete_scrapes": block.incomplete,
        "refused": [msgspec.to_builtins(one) for one in part.refusals],
        **_build_estimates(part.found, live),
    }


def _build_estimates(
    found: CostRefit | LengthFit | RefittedTokenScale | None, live: CostRegression | None
) -> dict[str, Any]:
    if isinstance(found, LengthFit):
        return {"mu": found.mu, "sigma": found.sigma, "n": found.n, "censored": found.censored,
                "mean_tokens_out": found.mean, "mu_standard_error": found.mu_error,
                "sigma_standard_error": found.sigma_error}  # fmt: skip
    if isinstance(found, RefittedTokenScale):
        return {"ratio": found.ratio, "interval": found.ratio_half,
                "per_dense_char": found.per_dense_char,
                "per_dense_char_interval": found.dense_half,
                "per_dense_char_kept": found.dense_kept,
                "held_out": _build_held_out(found.holdout)}  # fmt: skip
    if found is None or live is None:
        return {}
    solved, drift, step = found.solved, found.drift, found.step
    errors = solved.standard_errors
    shares = dict(zip(found.used, solved.prior_share.tolist(), strict=True))
    place = {at: where for where, at in enumerate(found.used)}
    return {
        "form": found.form.value,
        "passed_over": list(found.rejected_forms),
        "coefficients": [
            {
                "name": term.name,
                "times": term.factor,
                "unit": term.unit,
                "value": found.coefficients[at],
                "low": float(step * solved.low[place[at]]) if at in place else 0.0,
                "high": float(step * solved.high[place[at]]) if at in place else 0.0,
                "standard_error": float(step * errors[place[at]]) if at in place else 0.0,
                "live": live.coefficients[at] if at < live.form.term_count else None,
                "prior_share": shares.get(at, 0.0),
            }
            for at, term in enumerate(list_terms(found.form, found.quantity))
        ],
        "covariance": found.covariance,
        "r2": solved.r2,
        "rmse_share": found.rmse,
        "blocks": found.holdout.blocks,
        "block_seconds": found.block_seconds,
        "held_out": _build_held_out(found.holdout),
        "change": found.change,
        "step": found.step,
        "winsorised": list(found.winsorised),
        "load_attenuation": found.attenuation,
        "condition": solved.condition,
        "prior_share": max(shares.values()),
        "b4_kept": found.kept_load,
        "live_form": live.form.value,
        "mean_observed": drift.observed,
        "mean_predicted_live": drift.predicted,
        "bias": drift.relative_bias,
        "live_rmse_share": drift.rmse,
        "chow": {"f": drift.chow.f, "p": drift.chow.p, "k": drift.chow.k,
                 "freedom": drift.chow.freedom} if drift.chow else None,
        "mean_request": {"tokens_in": float(found.mean[1]), "tokens_out": float(found.mean[2])},
    }  # fmt: skip
