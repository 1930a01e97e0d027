"""From fits to a profile file: entries with provenance, merged model by model into what there is.

A model that was not fitted stays as it is; one that was keeps its accuracy, and its joules, token
ratio and output line where the rows had none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.fit.cost import CostFit
from calibration.fit.model import ModelFit
from calibration.stats.lengths import OutputLengthFit, TokenRatioFit
from calibration.tables.columns import BadInput
from calibration.tables.rows import MeasuredRows
from gateway import profile
from gateway.profile import (
    SHIPPED,
    AccuracyProfile,
    CostProfile,
    CostRegression,
    ModelProfile,
    OutputCoefficients,
    TokenRatio,
)
from gateway.utc_time import format_now

MERGE_NONE = "none"
ASSUMED_ACCURACY = 0.5


@dataclass(frozen=True, slots=True)
class ProfileOverrides:
    """What the command line adds to what the rows say."""

    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Per model; the key "" stands for every model."""
    hardware: str | None = None
    engine: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def load_base_profile(merge: str | None, out: Path | None) -> CostProfile | None:
    """Return the profile to merge into: that of --merge, else --out where it exists.

    Raises ProfileError for one that cannot be read or comes from a newer version.
    """
    if merge == MERGE_NONE:
        return None
    if merge == SHIPPED:
        return profile.load_profile(None)
    if merge is not None:
        return profile.load_profile(Path(merge))
    return profile.load_profile(out) if out is not None and out.exists() else None


def merge_fits(
    fits: list[ModelFit], rows: MeasuredRows, old: CostProfile | None, said: ProfileOverrides
) -> dict[str, ModelProfile]:
    """Return all models of the new profile. Raises BadInput for one without joules.

    Nor is an entry made of a fit that predicts costs below zero in its own range.
    """
    models = dict(old.models) if old else {}
    for name in said.accuracy:
        if name and name not in {fit.model for fit in fits}:
            known = ", ".join(fit.model for fit in fits)
            raise BadInput(f"--accuracy {name}=…: no such model was fitted (there are: {known})")
    for fit in fits:
        models[fit.model] = _build_model_profile(fit, rows, models.get(fit.model), said, old)
    return models


def _build_model_profile(
    fit: ModelFit,
    rows: MeasuredRows,
    before: ModelProfile | None,
    said: ProfileOverrides,
    old: CostProfile | None,
) -> ModelProfile:
    for cost in fit.cost_fits:
        if cost.negative_reason is not None:
            raise BadInput(
                f"{fit.model}: {cost.quantity.value}: "
                f"the {cost.form.value} form {cost.negative_reason}"
            )
    accuracy, accuracy_from = _choose_accuracy(fit.model, before, said)
    if fit.joules is not None:
        joules, joules_from = _build_regression(fit.joules), "fitted to these rows"
    elif before is not None and old is not None:
        joules = before.joules
        where = before.provenance.get("hardware", "not stated")
        joules_from = f"kept from profile {old.version} (measured on: {where}); none in these rows"
    else:
        raise BadInput(
            f"{fit.model}: the rows have no joules, and a profile needs them: give --col "
            "joules=NAME, or --merge FILE (or --merge shipped) with a profile that has "
            f"{fit.model!r} already, whose joules are then kept"
        )
    tokens, tokens_from = _choose_token_ratio(fit.ratio, before)
    output, output_from = _choose_output_length(fit.output, before)
    return ModelProfile(
        accuracy=accuracy,
        seconds=_build_regression(fit.seconds),
        joules=joules,
        tokens=tokens,
        output=output,
        idle_watts=before.idle_watts if before else None,
        provenance={
            **_build_provenance(fit, rows, said),
            "accuracy": accuracy_from,
            "joules": joules_from,
            "tokens": tokens_from,
            "output": output_from,
            "flags": fit.flags,
        },
    )


def _build_regression(fit: CostFit) -> CostRegression:
    fitted = fit.fitted
    return CostRegression(
        form=fit.form,
        coefficients=[float(b) for b in fitted.coefficients],
        covariance=[[float(v) for v in row] for row in fitted.covariance],
        n=fitted.n,
        r2=fitted.r2,
        rmse=fitted.rmse,
        fitted_range={name: list(ends) for name, ends in fit.fitted_ranges.items()},
    )


def _choose_accuracy(
    model: str, before: ModelProfile | None, said: ProfileOverrides
) -> tuple[AccuracyProfile, str]:
    given = said.accuracy.get(model, said.accuracy.get(""))
    if given is not None:
        tasks = before.accuracy.tasks if before else {}
        return AccuracyProfile(given, tasks), "given with --accuracy"
    if before is not None:
        was = before.provenance.get("accuracy")
        return before.accuracy, was if isinstance(was, str) else "kept from the profile before"
    text = f"ASSUMED {ASSUMED_ACCURACY}: not measured; set it with joulegate accuracy"
    return AccuracyProfile(ASSUMED_ACCURACY), text


def _choose_token_ratio(
    ratio: TokenRatioFit | str, before: ModelProfile | None
) -> tuple[TokenRatio, str]:
    if isinstance(ratio, TokenRatioFit):
        low, high = ratio.interval
        text = f"fitted to {ratio.n} rows (95% interval {low:.4g} to {high:.4g})"
        return TokenRatio(ratio.value), text
    if before is not None:
        return before.tokens, f"kept from the profile before: {ratio}"
    return TokenRatio(), f"1 assumed: {ratio}"


def _choose_output_length(
    line: OutputLengthFit | str, before: ModelProfile | None
) -> tuple[OutputCoefficients | None, str]:
    if isinstance(line, OutputLengthFit) and line.unsuited_reason is None:
        text = f"fitted to {line.n} rows (R2 {line.r2:.3f})"
        return OutputCoefficients(line.slope, line.intercept), text
    why = line if isinstance(line, str) else line.unsuited_reason
    if before is not None and before.output is not None:
        return before.output, f"kept from the profile before: {why}"
    return None, f"the published heuristic stands in: {why}"


def _build_provenance(fit: ModelFit, rows: MeasuredRows, said: ProfileOverrides) -> dict[str, Any]:
    """Where the rows come from and how they were fitted."""
    used = fit.usable
    files = {int(at) for at in used["file"].unique()}
    return {
        "source": f"joulegate fit {_find_package_version()}",
        "hardware": said.hardware or _join_texts(used["hardware"]),
        "engine": said.engine or _join_texts(used["engine"]),
        "dates": _find_date_range(used["at"]),
        "fitted": format_now(),
        "method": "; ".join(
            f"{cost.quantity.value}: OLS, {cost.loss.value} loss, {cost.form.value} "
            f"({cost.why}), {cost.fitted.robust} covariance, "
            f"out-of-fold RMSE {cost.errors.rmse:.4g}, median error {cost.errors.median_ape:.1%}"
            for cost in fit.cost_fits
        ),
        "energy": {
            str(name) or "not stated": int(count)
            for name, count in used.loc[used["joules"].notna(), "method"].value_counts().items()
        },
        "load": _describe_load(used["running"]),
        "rows": {
            "read": fit.rows,
            "seconds": fit.seconds.fitted.n,
            "joules": fit.joules.fitted.n if fit.joules else 0,
            "unusable": {one.reason: one.count for one in fit.unusable},
        },
        "files": [
            {"name": source.name, "sha256": source.sha256}
            for at, source in enumerate(rows.files)
            if at in files
        ],
        "options": dict(said.options),
    }


def _join_texts(column: pd.Series) -> str:
    return ", ".join(sorted({str(text) for text in column.unique() if text})) or "not stated"


def _find_date_range(column: pd.Series) -> list[str]:
    """First and last time; ISO texts sort as times do."""
    known = column[column != ""]
    return [str(known.min()), str(known.max())] if len(known) else []


def _describe_load(running: pd.Series) -> str:
    values = running.to_numpy(dtype=float)
    if np.isnan(values).all():
        return "not stated"
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{low:g} to {high:g} other requests running" if high > low else f"{low:g} other running"


def _find_package_version() -> str:
    try:
        return metadata.version("joulegate")
    except metadata.PackageNotFoundError:
        return "(not installed)"
