"""`joulegate library list | show | add`: measured costs of real GPUs, and into a profile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway import profile as profiles
from gateway.console import OK, out, report_failure, report_usage_error
from gateway.library import table
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import LibraryError, load_library
from gateway.profile import ModelProfile, ProfileError

_QUANTITIES = (("seconds", "s"), ("joules", "J"))
_TERMS = ("", "per token in", "per token out", "per token in x token out", "by load")
_LOAD_TERMS = {"seconds": "per token out x other request", "joules": "per token out / (1 + others)"}


def list_entries(containing: str, *, as_json: bool) -> int:
    """Print the entries whose names have the text in them."""
    library = load_library()
    rows = table.list_rows(library, containing)
    if not rows:
        return report_usage_error(
            f"no entry has {containing!r} in its name (joulegate library list)"
        )
    if as_json:
        shown = {
            "source": library.source,
            "leave_one_out": library.leave_one_out,
            "entries": {row.name: row.entry for row in rows},
        }
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())  # noqa: T201
        return OK
    out.print(table.draw_table(rows))
    out.print(
        f"source: {library.source}; at 1: extrapolated, the least batch is 8",
        markup=False,
        soft_wrap=True,
    )
    for line in table.describe_errors(library):
        out.print(line, markup=False, soft_wrap=True)
    return OK


def show_entry(name: str, *, as_json: bool) -> int:
    """Print one entry with the origin of each coefficient."""
    try:
        full, entry = load_library().find_entry(name)
        model = build_model_profile(load_library(), full)
    except LibraryError as error:
        return report_usage_error(error)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode({full: model})).decode())  # noqa: T201
        return OK
    out.print(f"[bold]{full}[/]: {entry.model_id} on {model.provenance['hardware']}")
    for key in ("source", "engine", "method"):
        out.print(f"{key}: {model.provenance[key]}", markup=False, soft_wrap=True)
    for quantity, unit in _QUANTITIES:
        _print_coefficients(quantity, unit, model)
    out.print(
        f"idle: {model.idle_watts:g} W; {model.provenance['idle_watts']}",
        markup=False,
        soft_wrap=True,
    )
    for key in ("accuracy", "output", "weakness"):
        out.print(f"{key}: {model.provenance[key]}", markup=False, soft_wrap=True)
    for quantity, errors in model.provenance["leave_one_out"].items():
        out.print(
            f"leave-one-out error of {quantity} per token: {errors}", markup=False, soft_wrap=True
        )
    return OK


def _print_coefficients(quantity: str, unit: str, model: ModelProfile) -> None:
    coefficients = getattr(model, quantity).coefficients
    origins: Mapping[str, Any] = model.provenance[quantity]
    out.print(
        f"{quantity}, form {getattr(model, quantity).form.value}:", markup=False, soft_wrap=True
    )
    terms = (*_TERMS[:-1], _LOAD_TERMS[quantity])
    for value, term, (name, origin) in zip(coefficients, terms, origins.items(), strict=True):
        out.print(
            f"  {name} {value:.4g} {unit} {term}".rstrip() + f": {origin}",
            markup=False,
            soft_wrap=True,
        )


def add_entry(name: str, key: str, profile: Path, *, accuracy: float | None, replace: bool) -> int:
    """Merge an entry into a profile file under `key`."""
    if not key.strip():
        return report_usage_error("--as: a model needs a name")
    try:
        old = profiles.load_profile(profile) if profile.exists() else None
        models = dict(old.models) if old else {}
        before = models.get(key)
        if before is not None and not replace:
            return report_usage_error(
                f"{profile} has a model {key!r} already; --replace takes the library's costs "
                "and keeps its accuracy, tokens and output"
            )
        models[key] = build_model_profile(load_library(), name, accuracy=accuracy, before=before)
        profiles.save_profile(
            models,
            profile,
            old.lengths if old else None,
            old.accuracy_by_prompt if old else None,
        )
    except ProfileError as error:
        return report_usage_error(error)
    except OSError as error:
        return report_failure(f"{profile}: {error.strerror}")
    made = models[key]
    out.print(
        f"{profile}: {key} added from {made.provenance['source']}", markup=False, soft_wrap=True
    )
    for said in ("accuracy", "weakness"):
        out.print(f"{said}: {made.provenance[said]}", markup=False, soft_wrap=True)
    return OK
