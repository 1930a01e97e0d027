"""Write docs/reference, docs/images and the library's table from the definitions in the code.

`python docs/generate.py` writes every page; with `--check` it writes nothing, lists the pages that
are stale and exits 1. A page holds only what the code says: to change it, change the code.
"""

# ruff: noqa: INP001, T201 - a script

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import draw
import draw_deciding
import draw_load
import draw_peers
import pages
import series

DOCS = Path(__file__).parent
_NOTE = "<!-- Written by docs/generate.py; change {source} instead. -->\n"
_BEGIN = "<!-- This table is written by docs/generate.py from {source}. -->"
_END = "<!-- End of the table. -->"


def _page(make: Callable[[], Iterable[str]], source: str) -> Callable[[], str]:
    return lambda: (
        "\n\n".join([_NOTE.format(source=source), *make()]).replace("\n\n\n", "\n\n") + "\n"
    )


def _filled(name: str, make: Callable[[], str], source: str) -> Callable[[], str]:
    """Return what makes a written page's text anew, its one marked block replaced."""

    def fill() -> str:
        text = (DOCS / name).read_text(encoding="utf-8")
        before, _, rest = text.partition(_BEGIN.format(source=source))
        _, end, after = rest.partition(_END)
        if not end:
            raise ValueError(f"docs/{name} has no block that begins and ends as {_BEGIN!r} says")
        return f"{before}{_BEGIN.format(source=source)}\n\n{make()}\n\n{_END}{after}"

    return fill


PAGES: dict[str, Callable[[], str]] = {
    "reference/config.md": _page(pages.config_page, "gateway/config.py"),
    "reference/meter.md": _page(pages.meter_page, "gateway/meter_config.py"),
    "reference/metrics.md": _page(series.metrics_page, "gateway/telemetry"),
    "reference/headers.md": _page(pages.headers_page, "gateway/service/client/headers.py"),
    "reference/errors.md": _page(pages.errors_page, "gateway/service/client/errors.py"),
    "reference/cli.md": _page(pages.cli_page, "gateway/cli.py"),
    "reference/api.md": _page(pages.api_page, "gateway/api/openapi.py"),
    "reference/profile.md": _page(pages.profile_page, "gateway/profiles/published.json"),
    "reference/openapi.json": pages.openapi_file,
    "library.md": _filled("library.md", pages.library_table, "gateway/profiles/library.json"),
    "images/decision.svg": draw.picture,
    "images/load.svg": draw_load.load_picture,
    "benchmarks.md": _filled("benchmarks.md", draw_peers.peers_table, "docs/peers.json"),
    "images/peers.svg": draw_peers.peers_picture,
    "images/packing.svg": draw_deciding.packing_picture,
    "images/lengths.svg": draw_deciding.lengths_picture,
}
"""Every generated file under docs/, and what makes its text."""


def main(arguments: list[str]) -> int:
    """Write or check every page; return the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if not stale:
        return 0
    print(f"{'stale' if arguments else 'written'}: " + ", ".join(f"docs/{name}" for name in stale))
    if arguments:
        print("run `make docs`")
    return 1 if arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
