"""`python -m calibration.library POINTS.csv`: make the shipped library anew, or check it.

For maintainers: users have what it writes. The points are the leaderboard's and are not shipped.
"""

from pathlib import Path
from typing import Annotated

import typer

from calibration.library.build import build_library, encode_file
from calibration.library.measured_series import read_series
from calibration.tables.columns import BadInput
from gateway.console import FAILED, OK, err, out, report_usage_error
from gateway.library import table

LIBRARY_FILE = Path("gateway/profiles/library.json")
SUMMARY_FILE = Path("calibration/library/summary.json")


def build(
    points: Annotated[Path, typer.Argument(help="CSV of the leaderboard's measured points.")],
    write: Annotated[
        bool, typer.Option("--write", help="Write both files; default: compare with them.")
    ] = False,
) -> None:
    """Fit the library and print the leave-one-out errors per series and over all."""
    raise typer.Exit(code=run_build(points, Path(__file__).parents[2], write=write))


def run_build(points: Path, root: Path, *, write: bool) -> int:
    """Fit, print, and write below `root` or compare; returns the exit code."""
    try:
        made, sums = build_library(read_series(points))
    except BadInput as error:
        return report_usage_error(error)
    out.print(table.draw_table(table.list_rows(made)))
    for line in table.describe_errors(made):
        out.print(line, markup=False)
    stale = []
    for path, content in ((LIBRARY_FILE, made), (SUMMARY_FILE, sums)):
        raw = encode_file(content)
        if (root / path).exists() and (root / path).read_bytes() == raw:
            continue
        stale.append(str(path))
        if write:
            (root / path).write_bytes(raw)
    if stale:
        err.print(f"{'written' if write else 'differ'}: {', '.join(stale)}", markup=False)
    return FAILED if stale and not write else OK


if __name__ == "__main__":
    typer.run(build)
