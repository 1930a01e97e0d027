"""The reference project's published figures, computed from its raw rows to check their reading.

Its two files are normalization_stats.json (per model: mean and population standard deviation of
the raw columns, and the ends of log(1 + x) of runtime and energy) and model_regression_summary.csv
(additive OLS of z-scored runtime and energy on z-scored token counts; its tokens out count the
prompt as well, so `--output-includes-prompt` must not be given). The offline half of the hybrid
policy's z-score, signed log and min-max stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from calibration.fit import model as fit
from calibration.stats.lengths import OutputLengthFit
from calibration.tables.columns import BadInput
from calibration.tables.rows import MeasuredRows

_COST_COLUMNS = {"runtime": "seconds", "energy": "joules"}
_TOKEN_COLUMNS = {"input_tokens": "tokens_in", "output_tokens": "tokens_out"}


@dataclass(frozen=True, slots=True)
class ReferenceFigures:
    """The published figures; the dicts have the names and the shape of the published files."""

    stats: dict[str, dict[str, dict[str, float]]]
    """normalization_stats.json"""
    regressions: list[dict[str, Any]]
    """The rows of model_regression_summary.csv."""
    output: OutputLengthFit
    """Tokens out on tokens in, over all models."""


def reproduce_figures(rows: MeasuredRows, accuracy: Mapping[str, float]) -> ReferenceFigures:
    """Compute them; a model's accuracy block is there where `accuracy` knows it.

    Raises BadInput where a model has no joules or a column never varies.
    """
    stats: dict[str, dict[str, dict[str, float]]] = {}
    regressions = []
    for model in rows.model_names:
        usable = rows.select_usable(model).dropna(subset=["joules"])
        if not len(usable):
            raise BadInput(f"{model}: no row with joules, which the reference report needs")
        stats[model] = _compute_normalization_stats(usable)
        regressions.append({"model": model, **_fit_z_scores(model, usable)})
    known = {model: accuracy[model] for model in stats if model in accuracy}
    for model, value in known.items():
        low, high = min(known.values()), max(known.values())
        span = high - low
        norm = (value - low) / span if span else 0.0
        stats[model]["accuracy"] = {"value": value, "min": low, "max": high, "norm": norm}
    output = fit.fit_pooled_output(rows)
    if isinstance(output, str):
        raise BadInput(f"output length: {output}")
    return ReferenceFigures(stats, regressions, output)


def _compute_normalization_stats(usable: pd.DataFrame) -> dict[str, dict[str, float]]:
    found = {}
    for name, ours in _TOKEN_COLUMNS.items():
        values = usable[ours].to_numpy(dtype=float)
        found[name] = {"mean": float(values.mean()), "std": float(values.std())}
    for name, ours in _COST_COLUMNS.items():
        values = usable[ours].to_numpy(dtype=float)
        logs = np.log1p(values)
        found[name] = {
            "log_min": float(logs.min()),
            "log_max": float(logs.max()),
            "raw_mean": float(values.mean()),
            "raw_std": float(values.std()),
        }
    return found


def _fit_z_scores(model: str, usable: pd.DataFrame) -> dict[str, float]:
    """Additive OLS on z-scores (population standard deviation)."""
    z = {}
    for ours in (*_TOKEN_COLUMNS.values(), *_COST_COLUMNS.values()):
        values = usable[ours].to_numpy(dtype=float)
        spread = values.std()
        if not spread > 0.0:
            raise BadInput(f"{model}: {ours} never varies, so it has no z-score")
        z[ours] = (values - values.mean()) / spread
    x = np.column_stack([np.ones(len(usable)), *(z[ours] for ours in _TOKEN_COLUMNS.values())])
    found = {}
    for name, ours in _COST_COLUMNS.items():
        result = OLS(z[ours], x).fit()
        const, in_tokens, out_tokens = (float(value) for value in result.params)
        found[f"{name}_const"] = const
        found[f"{name}_in_tokens"] = in_tokens
        found[f"{name}_out_tokens"] = out_tokens
        found[f"{name}_R2"] = float(result.rsquared)
    return found
