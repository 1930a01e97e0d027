"""What `joulegate fit` found, as plain values; docs/fitting.md explains the figures."""

from collections.abc import Sequence
from typing import Any

from calibration.fit.cost import CostFit, FormTrial
from calibration.fit.model import ModelFit
from calibration.fit.published import ReferenceFigures
from calibration.stats.design import list_terms
from calibration.stats.lengths import OutputLengthFit, TokenRatioFit
from calibration.tables.rows import MeasuredRows


def build_report_json(
    fits: Sequence[ModelFit], rows: MeasuredRows, pooled: OutputLengthFit | str
) -> dict[str, Any]:
    """Return the report as plain values; errors of shares are shares (0.1 = 10%)."""
    return {
        **build_rows_json(rows),
        "models": [_build_model_json(fit) for fit in fits],
        "pooled_output": _build_output_length_json(pooled),
    }


def build_rows_json(rows: MeasuredRows) -> dict[str, Any]:
    """Return what was read and what of it could not be used."""
    return {
        "files": [{"name": one.name, "sha256": one.sha256, "rows": one.rows} for one in rows.files],
        "rows": {
            "read": sum(one.rows for one in rows.files),
            "left_out": rows.left_out,
            "unusable": [
                {"reason": one.reason, "count": one.count, "first": one.first}
                for one in rows.count_unusable()
            ],
        },
        "notes": rows.notes,
    }


def build_reference_json(found: ReferenceFigures) -> dict[str, Any]:
    """Return the reference figures under the names of the published files."""
    return {
        "normalization_stats": found.stats,
        "model_regression_summary": found.regressions,
        "pooled_output": _build_output_length_json(found.output),
    }


def _build_model_json(fit: ModelFit) -> dict[str, Any]:
    return {
        "model": fit.model,
        "rows": fit.rows,
        "usable": len(fit.usable),
        "unusable": {one.reason: one.count for one in fit.unusable},
        "seconds": _build_cost_json(fit.seconds),
        "joules": _build_cost_json(fit.joules) if fit.joules else None,
        "output": _build_output_length_json(fit.output),
        "token_ratio": _build_ratio_json(fit.ratio),
        "flags": fit.flags,
    }


def _build_cost_json(fit: CostFit) -> dict[str, Any]:
    fitted, odd = fit.fitted, fit.fitted.diagnostics
    return {
        "form": fit.form.value,
        "why": fit.why,
        "coefficients": [
            {
                "name": term.name,
                "times": term.factor,
                "unit": term.unit,
                "value": float(fitted.coefficients[at]),
                "low": float(fitted.low[at]),
                "high": float(fitted.high[at]),
                "standard_error": float(fitted.standard_errors[at]),
                "degrees_of_freedom": float(fitted.degrees_of_freedom[at]),
            }
            for at, term in enumerate(list_terms(fit.form, fit.quantity))
        ],
        "covariance": fitted.covariance.tolist(),
        "robust": fitted.robust,
        "n": fitted.n,
        "r2": fitted.r2,
        "rmse": fitted.rmse,
        "cross_validated": _build_errors_json(fit),
        "condition": fitted.condition_number,
        "leverage": {
            "max": odd.leverage_max,
            "rows_over_3k_n": odd.leverage_rows,
            "cook_max": odd.cook_max,
        },
        "residuals": {"over_6_sd": odd.outlier_rows, "worst_sd": odd.worst_sd},
        "loss": fit.loss.value,
        "fitted_range": {name: list(ends) for name, ends in fit.fitted_ranges.items()},
        "forms": [
            {
                "form": one.form.value,
                "r2": one.fitted.r2 if one.fitted else None,
                "cross_validated": _build_errors_json(one),
                "refused": one.refused,
                "negative": one.negative_reason,
            }
            for one in fit.trials
        ],
    }


def _build_errors_json(fit: CostFit | FormTrial) -> dict[str, float] | None:
    if fit.errors is None:
        return None
    return {
        "rmse": fit.errors.rmse,
        "median_ape": fit.errors.median_ape,
        "p90_ape": fit.errors.p90_ape,
    }


def _build_output_length_json(line: OutputLengthFit | str) -> dict[str, Any]:
    if isinstance(line, str):
        return {"missing": line}
    return {
        "slope": line.slope,
        "slope_interval": list(line.slope_interval),
        "intercept": line.intercept,
        "intercept_interval": list(line.intercept_interval),
        "r2": line.r2,
        "n": line.n,
        "unsuited": line.unsuited_reason,
    }


def _build_ratio_json(ratio: TokenRatioFit | str) -> dict[str, Any]:
    if isinstance(ratio, str):
        return {"missing": ratio}
    return {"value": ratio.value, "interval": list(ratio.interval), "n": ratio.n}
