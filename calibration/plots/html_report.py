"""`joulegate report`: every figure with its numbers and weaknesses in one HTML file.

The file needs nothing else: pictures are inline SVG, there is no script and no request to anyone.
"""

import platform
import shlex
import sys
from html import escape
from importlib.metadata import PackageNotFoundError, version
from string import Template

from calibration.plots import gallery, output, style
from calibration.plots import plot_data as material
from calibration.plots.inline import render_inline_svg
from calibration.plots.options import PlotSources, ReportOptions
from calibration.plots.picture import Picture, PictureTable
from calibration.plots.plot_data import PlotData, select_regression
from calibration.plots.theme import PAGE
from calibration.stats.design import UNITS, list_terms
from gateway.scheduling.cost import CostQuantity

_LONG = 50


def run(options: ReportOptions) -> int:
    """Write the report; return the exit code."""
    return output.run_with_exit_code(lambda: _write_report(options))


def _write_report(options: ReportOptions) -> None:
    output.check_output_path(options.out, options.sources.source_files)
    command = options.command or shlex.join(["joulegate", *sys.argv[1:]])
    with output.show_progress() as told:
        found = material.load_plot_data(options.sources, told)
        pictures, missing = gallery.draw_pictures(found, told=told)
        told("writing the report")
        content = render_page(found, pictures, missing, options.sources, command)
    output.write_files({options.out: content.encode()})
    output.print_line(f"wrote {options.out} ({len(content.encode()) / 1e6:.1f} MB)")


def render_page(
    found: PlotData,
    pictures: list[Picture],
    missing: dict[str, str],
    sources: PlotSources,
    command: str,
) -> str:
    """Return the whole page; the same inputs give the same text."""
    links = [(one.name, one.title) for one in pictures]
    links += [("weaknesses", "Weaknesses"), ("provenance", "Provenance")]
    contents = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in links)
    return Template(PAGE).substitute(
        ink=style.INK,
        paper=style.PAPER,
        muted=style.MUTED,
        origin=escape(found.origin),
        version=found.profile.version,
        command=escape(command),
        contents=contents,
        models=_render_table(_build_models_table(found)),
        pictures="\n".join(_render_picture(one) for one in pictures),
        weaknesses=_render_weaknesses(found, pictures, missing),
        provenance=_render_provenance(found, sources),
        made=escape(_describe_software()),
    )


def _render_picture(one: Picture) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in one.notes)
    tables = "".join(_render_table(table) for table in one.tables)
    return (
        f'<section id="{one.name}"><h2>{escape(one.title)}</h2><p>{escape(one.reading)}</p>'
        f"{f'<ul>{notes}</ul>' if notes else ''}"
        f'<figure role="img" aria-label="{escape(one.title)}">{render_inline_svg(one)}</figure>'
        "<details open><summary>Numbers</summary>"
        f'<div class="tables">{tables}</div></details></section>'
    )


def _render_table(table: PictureTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(_render_cell(cell) for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide"><table><caption>{escape(table.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _render_cell(text: str) -> str:
    long = ' class="long"' if len(text) > _LONG else ""
    return f"<td{long}>{escape(text)}</td>"


def _build_models_table(found: PlotData) -> PictureTable:
    """Return a table of the profile's coefficients, a row per model."""
    rows = []
    for name, model in found.profile.models.items():
        cells = [name, f"{model.accuracy.default:.1%}"]
        for quantity in CostQuantity:
            cost = select_regression(model, quantity)
            parts = zip(cost.coefficients, list_terms(cost.form, quantity), strict=True)
            text = " + ".join(
                f"{value:.4g}" + (f" {term.factor}" if at else "")
                for at, (value, term) in enumerate(parts)
            )
            cells += [
                f"{text} {UNITS[quantity]}".replace("+ -", "− "),
                "-" if cost.r2 is None else f"{cost.r2:.3f}",
                "-" if cost.n is None else f"{cost.n:,}",
            ]
        cells += [model.to_output_model().write_formula(), f"{model.tokens.ratio:.3g}"]
        rows.append(cells)
    return PictureTable(
        "The profile",
        ("model", "accuracy", *("seconds", "R2", "rows"), *("joules", "R2", "rows"),
         "expected tokens out", "token ratio"),
        rows,
    )  # fmt: skip


def _render_weaknesses(found: PlotData, pictures: list[Picture], missing: dict[str, str]) -> str:
    said: list[tuple[str, str]] = []
    for name, model in found.profile.models.items():
        weakness = model.provenance.get("weakness")
        if weakness:
            said.append((f"{name}, profile", str(weakness)))
        flags = model.provenance.get("flags")
        said += [(f"{name}, profile", str(one)) for one in flags if one] if flags else []
        if not weakness and not flags:
            said.append((f"{name}, profile", "its provenance states no weakness"))
    said += [(f"{name}, rows", flag) for name, one in found.fits.items() for flag in one.flags]
    said += [("inputs", note) for note in found.notes]
    said += [(name, f"not drawn: {why}") for name, why in missing.items()]
    said += [(one.name, note) for one in pictures for note in one.notes]
    said += [
        ("every picture", "a cost is a mean over requests: one request may cost much more or less"),
        ("every picture", "context windows, capabilities and bounds of the config are ignored"),
        ("every picture", f"each model is assumed to run {found.running} other requests"),
        ("every picture", "accuracies are shares on one set of tasks, without an interval"),
    ]  # fmt: skip
    return _render_table(
        PictureTable("Weaknesses and assumptions", ("of", "what"), list(dict.fromkeys(said)))
    )


def _render_provenance(found: PlotData, sources: PlotSources) -> str:
    rows: list[tuple[str, str, str]] = []
    for name, model in found.profile.models.items():
        told = {key: value for key, value in model.provenance.items() if key != "weakness"}
        rows += [(name, key, _format_value(value)) for key, value in told.items() if key != "flags"]
        if not told:
            rows.append((name, "-", "the profile says nothing of where it comes from"))
    files = [(str(path), material.compute_sha256(path), "") for path in sources.source_files]
    if found.rows is not None:
        counts = {one.sha256: f"{one.rows:,} rows" for one in found.rows.files}
        files = [(path, digest, counts.get(digest, "")) for path, digest, _ in files]
    if sources.profile is None:
        files.insert(0, ("the shipped profile", f"version {found.profile.version}", ""))
    tables = [
        PictureTable("Files read", ("file", "sha256", "holds"), files),
        PictureTable("Where the profile comes from", ("model", "what", "says"), rows),
    ]
    return f"<p>Prompts: {escape(found.prompts_from)}.</p>" + "".join(map(_render_table, tables))


def _format_value(value: object) -> str:
    """Format a provenance value, any JSON type."""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_format_value(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_format_value, value)) or "none"
    return str(value)


def _describe_software() -> str:
    names = ("joulegate", "matplotlib", "numpy", "pandas", "statsmodels")
    return f"Python {platform.python_version()}, " + ", ".join(
        f"{name} {_get_package_version(name)}" for name in names
    )


def _get_package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
