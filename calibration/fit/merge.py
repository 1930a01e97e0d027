"""From fits to a profile file: entries with provenance, merged model by model into what there is.

A model that was not fitted stays as it is; one that was keeps its accuracy, and its joules, token
ratio and output line where the rows had none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from calibration.fit.cost import CostFit
from calibration.fit.model import ModelFit
from calibration.stats.lengths import Line, Ratio
from calibration.tables.columns import BadInput
from calibration.tables.rows import Rows
from gateway import profile
from gateway.profile import SHIPPED, Accuracy, ModelProfile, Output, Profile, Regression, Tokens

NOTHING = "none"
ASSUMED_ACCURACY = 0.5


@dataclass(frozen=True, slots=True)
class Said:
    """What the command line adds to what the rows say."""

    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Per model; the key "" stands for every model."""
    hardware: str | None = None
    engine: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def base(merge: str | None, out: Path | None) -> Profile | None:
    """Return the profile to merge into: that of --merge, else --out where it exists.

    Raises ProfileError for one that cannot be read or comes from a newer version.
    """
    if merge == NOTHING:
        return None
    if merge == SHIPPED:
        return profile.load(None)
    if merge is not None:
        return profile.load(Path(merge))
    return profile.load(out) if out is not None and out.exists() else None


def merged(
    fits: list[ModelFit], rows: Rows, old: Profile | None, said: Said
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
        models[fit.model] = _entry(fit, rows, models.get(fit.model), said, old)
    return models


def _entry(
    fit: ModelFit, rows: Rows, before: ModelProfile | None, said: Said, old: Profile | None
) -> ModelProfile:
    for cost in fit.costs:
        if cost.negative is not None:
            raise BadInput(
                f"{fit.model}: {cost.quantity.value}: the {cost.form.value} form {cost.negative}"
            )
    accuracy, accuracy_from = _accuracy(fit.model, before, said)
    if fit.joules is not None:
        joules, joules_from = _regression(fit.joules), "fitted to these rows"
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
    tokens, tokens_from = _tokens(fit.ratio, before)
    output, output_from = _output(fit.output, before)
    return ModelProfile(
        accuracy=accuracy,
        seconds=_regression(fit.seconds),
        joules=joules,
        tokens=tokens,
        output=output,
        provenance={
            **_measured(fit, rows, said),
            "accuracy": accuracy_from,
            "joules": joules_from,
            "tokens": tokens_from,
            "output": output_from,
            "flags": fit.flags,
        },
    )


def _regression(fit: CostFit) -> Regression:
    fitted = fit.fitted
    return Regression(
        form=fit.form,
        coefficients=[float(b) for b in fitted.coefficients],
        covariance=[[float(v) for v in row] for row in fitted.covariance],
        n=fitted.n,
        r2=fitted.r2,
        rmse=fitted.rmse,
        fitted_range={name: list(ends) for name, ends in fit.ranges.items()},
    )


def _accuracy(model: str, before: ModelProfile | None, said: Said) -> tuple[Accuracy, str]:
    given = said.accuracy.get(model, said.accuracy.get(""))
    if given is not None:
        tasks = before.accuracy.tasks if before else {}
        return Accuracy(given, tasks), "given with --accuracy"
    if before is not None:
        was = before.provenance.get("accuracy")
        return before.accuracy, was if isinstance(was, str) else "kept from the profile before"
    text = f"ASSUMED {ASSUMED_ACCURACY}: not measured; set it with joulegate accuracy"
    return Accuracy(ASSUMED_ACCURACY), text


def _tokens(ratio: Ratio | str, before: ModelProfile | None) -> tuple[Tokens, str]:
    if isinstance(ratio, Ratio):
        low, high = ratio.interval
        text = f"fitted to {ratio.n} rows (95% interval {low:.4g} to {high:.4g})"
        return Tokens(ratio.value), text
    if before is not None:
        return before.tokens, f"kept from the profile before: {ratio}"
    return Tokens(), f"1 assumed: {ratio}"


def _output(line: Line | str, before: ModelProfile | None) -> tuple[Output | None, str]:
    if isinstance(line, Line) and line.unsuited is None:
        text = f"fitted to {line.n} rows (R2 {line.r2:.3f})"
        return Output(line.slope, line.intercept), text
    why = line if isinstance(line, str) else line.unsuited
    if before is not None and before.output is not None:
        return before.output, f"kept from the profile before: {why}"
    return None, f"the published heuristic stands in: {why}"


def _measured(fit: ModelFit, rows: Rows, said: Said) -> dict[str, Any]:
    """Where the rows come from and how they were fitted."""
    used = fit.usable
    files = {int(at) for at in used["file"].unique()}
    return {
        "source": f"joulegate fit {_version()}",
        "hardware": said.hardware or _texts(used["hardware"]),
        "engine": said.engine or _texts(used["engine"]),
        "dates": _dates(used["at"]),
        "fitted": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "method": "; ".join(
            f"{cost.quantity.value}: OLS, {cost.loss.value} loss, {cost.form.value} "
            f"({cost.why}), {cost.fitted.robust} covariance, "
            f"out-of-fold RMSE {cost.errors.rmse:.4g}, median error {cost.errors.median_ape:.1%}"
            for cost in fit.costs
        ),
        "energy": {
            str(name) or "not stated": int(count)
            for name, count in used.loc[used["joules"].notna(), "method"].value_counts().items()
        },
        "load": _load(used["running"]),
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


def _texts(column: pd.Series) -> str:
    return ", ".join(sorted({str(text) for text in column.unique() if text})) or "not stated"


def _dates(column: pd.Series) -> list[str]:
    """First and last time; ISO texts sort as times do."""
    known = column[column != ""]
    return [str(known.min()), str(known.max())] if len(known) else []


def _load(running: pd.Series) -> str:
    values = running.to_numpy(dtype=float)
    if np.isnan(values).all():
        return "not stated"
    low, high = np.nanmin(values), np.nanmax(values)
    return f"{low:g} to {high:g} other requests running" if high > low else f"{low:g} other running"


def _version() -> str:
    try:
        return metadata.version("joulegate")
    except metadata.PackageNotFoundError:
        return "(not installed)"
