"""`joulegate fit`: from files and options to a report and, with --out, a profile file.

Everything is read, fitted and checked before a byte is written; a profile is replaced whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import TimeRemainingColumn

from calibration.fit import merge, printed_report
from calibration.fit import model as fit
from calibration.fit import published as reference
from calibration.fit import report as fit_report
from calibration.fit.cost import Loss
from calibration.fit.options import FitOptions
from calibration.progress_bar import create_progress_bar
from calibration.tables.columns import BadInput, ColumnMapping, check_choice
from calibration.tables.rows import MeasuredRows, read_rows
from gateway import profile
from gateway.console import OK, format_os_error, out, print_json, report_usage_error
from gateway.scheduling.cost import RegressionForm

BEST_FORM = "best"
AUTO = "auto"
REFERENCE_REPORT = "reference"


def run(options: FitOptions) -> int:
    """Do it; return the exit code. Complaints go to stderr, nothing is written then."""
    try:
        report = (
            _run_reference_report(options)
            if options.report == REFERENCE_REPORT
            else _run_fit(options)
        )
    except (BadInput, profile.ProfileError) as error:
        return report_usage_error(error)
    except OSError as error:
        return report_usage_error(format_os_error(error))
    if options.as_json:
        print_json(report)
    return OK


def _run_fit(options: FitOptions) -> dict[str, Any]:
    form = (
        None
        if options.form == BEST_FORM
        else RegressionForm(check_choice(options.form, "--form", (*RegressionForm, BEST_FORM)))
    )
    loss = (
        None if options.loss == AUTO else Loss(check_choice(options.loss, "--loss", (*Loss, AUTO)))
    )
    check_choice(options.report, "--report", ("fit", REFERENCE_REPORT))
    _check_output_path(options.out, options.files)
    said = merge.ProfileOverrides(
        _parse_accuracies(options.accuracy),
        options.hardware,
        options.engine,
        _collect_fit_options(options),
    )
    old = merge.load_base_profile(options.merge, options.out)
    with _show_progress(options) as (on_bytes, on_model):
        rows = _read_checked_rows(options, on_bytes)
        on_model("")
        fits = fit.fit_all(rows, form=form, folds=options.folds, loss=loss, on_model=on_model)
    pooled = fit.fit_pooled_output(rows)
    version = None
    models = None
    if options.out is not None:
        models = merge.merge_fits(fits, rows, old, said)
    if not options.as_json:  # before the file is replaced: what cannot be told is not written
        printed_report.print_report(out, fits, rows, pooled)
    if options.out is not None and models is not None:
        profile.save_profile(
            models,
            options.out,
            old.lengths if old else None,
            old.accuracy_by_prompt if old else None,
        )
        version = profile.load_profile(options.out).version
        if not options.as_json:
            _print_written_path(options.out, version, models, {one.model for one in fits})
    return {
        **fit_report.build_report_json(fits, rows, pooled),
        "out": str(options.out) if options.out else None,
        "profile_version": version,
        "profile": models,
    }


def _run_reference_report(options: FitOptions) -> dict[str, Any]:
    if options.out is not None:
        raise BadInput("--report reference writes no profile: leave out --out")
    if options.output_includes_prompt:
        raise BadInput(
            "--report reference is about the published columns as they are: leave out "
            "--output-includes-prompt"
        )
    accuracy = _parse_accuracies(options.accuracy)
    with _show_progress(options) as (on_bytes, _):
        rows = _read_checked_rows(options, on_bytes)
    found = reference.reproduce_figures(rows, accuracy)
    if not options.as_json:
        printed_report.print_reference(out, found, rows)
    return {**fit_report.build_rows_json(rows), **fit_report.build_reference_json(found)}


def _read_checked_rows(options: FitOptions, on_bytes: Any) -> MeasuredRows:
    columns = ColumnMapping.from_options(
        options.col,
        options.scale,
        options.where,
        options.model,
        output_includes_prompt=options.output_includes_prompt,
    )
    rows = read_rows(options.files, columns, on_bytes)
    bad = rows.count_unusable()
    count = sum(one.count for one in bad)
    share = count / len(rows.frame)
    if share > options.max_bad:
        reasons = "; ".join(f"{one.count}: {one.reason} (first: {one.first})" for one in bad)
        hint = (
            "are the columns right (--col)?"
            if count == len(rows.frame)
            else f"fix them, or fit the rest with --max-bad {min(1.0, share + 0.001):.3f}"
        )
        raise BadInput(
            f"{count} of {len(rows.frame)} rows cannot be used, more than {options.max_bad:.1%}: "
            f"{reasons}; {hint}"
        )
    return rows


def _check_output_path(out: Path | None, files: list[Path]) -> None:
    """Refuse, before any work, a place where no profile can or should be written."""
    if out is None:
        return
    if any(
        out == path or (out.exists() and path.exists() and out.samefile(path)) for path in files
    ):
        raise BadInput(f"--out {out}: is one of the files to read")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no directory {out.parent}")
    if out.is_dir():
        raise BadInput(f"--out {out}: is a directory")
    if out.exists():
        profile.load_profile(out)  # whatever else it is, or a newer version's, is not overwritten


def _parse_accuracies(given: Iterable[str]) -> dict[str, float]:
    """Read `MODEL=SHARE`, or a plain share for every model (under "")."""
    found: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            raise BadInput(f"--accuracy {text}: want SHARE or MODEL=SHARE, a share from 0 to 1")
        found[name.strip()] = share
    return found


def _collect_fit_options(options: FitOptions) -> dict[str, Any]:
    """Those options that changed how the rows were read and fitted."""
    found: dict[str, Any] = {
        "col": options.col,
        "scale": options.scale,
        "where": options.where,
        "model": options.model,
        "output_includes_prompt": options.output_includes_prompt,
        "form": options.form,
        "loss": options.loss,
        "folds": options.folds,
    }
    return {name: value for name, value in found.items() if value}


def _print_written_path(
    path: Path, version: str | None, models: dict[str, profile.ModelProfile], fitted: set[str]
) -> None:
    kept = sorted(set(models) - fitted)
    also = f"; left as they were: {', '.join(kept)}" if kept else ""
    out.print(f"\nwrote {path} (version {version}){also}", markup=False, soft_wrap=True)
    for name in sorted(fitted):
        was = str(models[name].provenance["accuracy"])
        if was.startswith("ASSUMED"):
            out.print(f"! {name}: accuracy {was}, or --accuracy", markup=False, soft_wrap=True)


@contextmanager
def _show_progress(options: FitOptions) -> Iterator[tuple[Any, Any]]:
    """Show a bar on a terminal while files are read and models fitted."""
    total = sum(path.stat().st_size for path in options.files if path.is_file())
    bar = create_progress_bar("{task.description}", TimeRemainingColumn())
    with bar:
        task = bar.add_task("reading", total=total or None)

        def on_model(name: str) -> None:
            bar.update(task, description=f"fitting {name}", total=None)

        yield (lambda count: bar.advance(task, count)), on_model
