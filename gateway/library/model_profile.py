"""From an entry to a model of a profile file, with where each number comes from."""

from collections.abc import Mapping
from typing import Any

from gateway.library.shipped import Library, LibraryEntry
from gateway.profile import AccuracyProfile, CostRegression, ModelProfile, OutputCoefficients
from gateway.scheduling.cost import RegressionForm

ASSUMED_ACCURACY = 0.5
POOR_ERROR = 0.2
"""From this mean leave-one-out error on an entry's weakness begins with it."""


def build_model_profile(
    library: Library,
    name: str,
    *,
    accuracy: float | None = None,
    before: ModelProfile | None = None,
) -> ModelProfile:
    """Return a library entry as a profile's; `before` keeps its accuracy, tokens and output.

    Raises LibraryError for a name that is not in the library.
    """
    full, entry = library.find_entry(name)
    given: dict[str, Any] = {}
    told = {
        "accuracy": f"ASSUMED {ASSUMED_ACCURACY}: not measured; set it with joulegate accuracy",
        "tokens": "1 assumed",
        "output": f"mean answer of the source's {entry.task} prompts; yours will differ",
    }
    given["accuracy"] = AccuracyProfile(ASSUMED_ACCURACY)
    given["output"] = OutputCoefficients(slope=0.0, intercept=entry.answer_tokens)
    if before is not None:
        kept = ["accuracy", "tokens"] + (["output"] if before.output is not None else [])
        for field in kept:
            given[field] = getattr(before, field)
            was = before.provenance.get(field)
            told[field] = was if isinstance(was, str) else "kept from the profile before"
    if accuracy is not None:
        given["accuracy"] = AccuracyProfile(accuracy, before.accuracy.tasks if before else {})
        told["accuracy"] = "given with --accuracy"
    return ModelProfile(
        **given,
        seconds=_make_regression(entry, entry.seconds),
        joules=_make_regression(entry, entry.joules),
        idle_watts=library.idle_watts(entry),
        provenance={**describe_provenance(library, full, entry), **told},
    )


def _make_regression(entry: LibraryEntry, coefficients: list[float]) -> CostRegression:
    low, high = entry.batch
    return CostRegression(
        form=RegressionForm.LOAD,
        coefficients=list(coefficients),
        n=entry.points,
        fitted_range={"running": [low - 1.0, high - 1.0]},
    )


def describe_provenance(library: Library, name: str, entry: LibraryEntry) -> Mapping[str, Any]:
    """Say where each number of an entry comes from."""
    gpu = library.gpus[entry.gpu]
    low, high = entry.batch
    fitted = (
        f"fitted by relative loss to {entry.points} measured batches of {low:.3g} to {high:.4g}; "
        "extrapolated below and above"
    )
    arithmetic = (
        f"ASSUMED until profiled: 2 x {entry.active_parameters:.3g} parameters / ({entry.gpus} x "
        f"{gpu.peak_flops(entry.precision):.3g} operations/s x {library.prefill_utilisation:g})"
    )
    together = "0: the points of a series share one mean length, so it cannot be told from b2"
    parallel = (
        f"tensor {entry.tensor_parallel}, data {entry.data_parallel}, "
        f"expert {entry.expert_parallel}"
    )
    return {
        "source": f"{library.source}; joulegate library {name}",
        "model": entry.model_id,
        "hardware": f"{entry.gpus} x NVIDIA {entry.gpu}",
        "engine": f"vLLM, {entry.precision} weights, parallel: {parallel}",
        "method": f"energy and median time per token of the source's steady state, {entry.task}",
        "seconds": {
            "b0": "0: a prompt's fixed part is one step, counted among b2's",
            "b1": arithmetic,
            "b2": fitted,
            "b3": together,
            "b4": fitted,
        },
        "joules": {
            "b0": "0: as for seconds",
            "b1": f"{arithmetic}, at the boards' limit of {entry.gpus} x {gpu.board_watts:g} W",
            "b2": fitted,
            "b3": together,
            "b4": fitted,
        },
        "idle_watts": f"ASSUMED {gpu.idle_watts:g} W a GPU with a model loaded; "
        "joulegate_meter_idle_watts has yours",
        "leave_one_out": {
            quantity: f"median {errors.median:.1%}, mean {errors.mean:.1%}"
            for quantity, errors in (
                ("joules", entry.joules_error),
                ("seconds", entry.seconds_error),
            )
        },
        "weakness": f"{_describe_misfit(entry)}nothing was measured below a batch of {low:.3g}; "
        "prompt costs and idle watts are assumed; decode joules include the prefill of the "
        f"source's own prompts; one mean answer length ({entry.answer_tokens:.0f} tokens)",
    }


def _describe_misfit(entry: LibraryEntry) -> str:
    """Say of which cost the form misses the measured points by much, nothing where it does not."""
    poor = [
        f"{quantity} by {errors.mean:.0%}"
        for quantity, errors in (("joules", entry.joules_error), ("seconds", entry.seconds_error))
        if errors.mean >= POOR_ERROR
    ]
    return f"a point left out is missed on average in {' and '.join(poor)}; " if poor else ""
