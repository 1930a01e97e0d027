"""`joulegate plot`: pictures as files. Everything is drawn before the first one is written."""

from dataclasses import dataclass, field
from pathlib import Path

from calibration.plots import gallery, output, style
from calibration.plots import plot_data as material
from calibration.tables.columns import BadInput

FORMATS = {"png": ("png",), "svg": ("svg",), "both": ("png", "svg")}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's options, as they were given."""

    sources: material.Sources
    out: Path
    format: str = "both"
    only: list[str] = field(default_factory=list)


def run(options: Options) -> int:
    """Do it; return the exit code."""
    return output.guarded(lambda: _run(options))


def _run(options: Options) -> None:
    if options.format not in FORMATS:
        raise BadInput(f"--format {options.format}: is none of {', '.join(FORMATS)}")
    gallery.check(options.only)
    if options.out.exists() and not options.out.is_dir():
        raise BadInput(f"--out {options.out}: is not a directory")
    files: dict[Path, bytes] = {}
    with output.progress() as told:
        found = material.gather(options.sources, told)
        pictures, missing = gallery.draw(found, options.only, told)
        for one in pictures:
            told(f"writing {one.name}")
            for kind in FORMATS[options.format]:
                files[options.out / f"{one.name}.{kind}"] = style.encode(one.figure, kind, one.name)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in files:
        output.check(path, options.sources.files)
    output.write(files)
    for path in files:
        output.tell(f"wrote {path}")
    for name, why in missing.items():
        output.tell(f"not drawn: {name}: {why}")
    for note in dict.fromkeys([*found.notes, *(note for one in pictures for note in one.notes)]):
        output.tell(f"! {note}")
