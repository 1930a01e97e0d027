"""`joulegate plot`: figures as files. All are drawn before the first one is written."""

from pathlib import Path

from calibration.plots import gallery, output, style
from calibration.plots import plot_data as material
from calibration.plots.options import PlotOptions
from calibration.tables.columns import BadInput, check_choice

FORMATS = {"png": ("png",), "svg": ("svg",), "both": ("png", "svg")}


def run(options: PlotOptions) -> int:
    """Draw and write the figures; return the exit code."""
    return output.run_with_exit_code(lambda: _write_pictures(options))


def _write_pictures(options: PlotOptions) -> None:
    check_choice(options.format, "--format", FORMATS)
    gallery.check_picture_names(options.only)
    if options.out.exists() and not options.out.is_dir():
        raise BadInput(f"--out {options.out}: is not a directory")
    files: dict[Path, bytes] = {}
    with output.show_progress() as told:
        found = material.load_plot_data(options.sources, told)
        pictures, missing = gallery.draw_pictures(found, options.only, told)
        for one in pictures:
            told(f"writing {one.name}")
            for kind in FORMATS[options.format]:
                files[options.out / f"{one.name}.{kind}"] = style.encode_figure(
                    one.figure, kind, one.name
                )
    options.out.mkdir(parents=True, exist_ok=True)
    for path in files:
        output.check_output_path(path, options.sources.source_files)
    output.write_files(files)
    for path in files:
        output.print_line(f"wrote {path}")
    for name, why in missing.items():
        output.print_line(f"not drawn: {name}: {why}")
    for note in dict.fromkeys([*found.notes, *(note for one in pictures for note in one.notes)]):
        output.print_line(f"! {note}")
