"""What `joulegate` starts with; installed as the module `joulegate`, and imports only Python's own.

Our packages have plain names, `gateway`, `backends` and `calibration`, which others may use too.
Where another's comes first, or lies over ours, anything might fail in any way: so their origin is
looked at before they are imported. `python -m joulegate` works as well.
"""

import sys
from importlib import metadata, util
from pathlib import Path

PACKAGES = ("gateway", "backends", "calibration")
MARK = "Joulegate:"
"""What the first line of each package's `__init__.py` says."""
UNUSABLE = 2


def find_foreign_package() -> tuple[str, str] | None:
    """Return the first of our packages that is another's or missing, and where it lies."""
    for name in PACKAGES:
        found = util.find_spec(name)
        origin = None if found is None else found.origin
        if origin is None or MARK not in _read_first_line(Path(origin)):
            folders = list((found.submodule_search_locations if found else None) or ())
            return name, origin or ", ".join(folders) or "nowhere"
    return None


def _read_first_line(path: Path) -> str:
    try:
        return path.read_text("utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""


def describe_foreign_package(name: str, where: str) -> str:
    """Return what is wrong and what to do about it."""
    if where == "nowhere":
        return f"joulegate: its package {name!r} is not installed; install Joulegate anew"
    owners = metadata.packages_distributions().get(name, [])
    others = sorted({owner for owner in owners if owner.lower() != "joulegate"})
    whose = f"of the distribution {' and '.join(others)}" if others else "not Joulegate's"
    return (
        f"joulegate: the package {name!r} at {where} is {whose}, and hides Joulegate's own. "
        "Install Joulegate into a virtual environment of its own (python3 -m venv), and see that "
        "PYTHONPATH names no folder with such a package"
    )


def main() -> None:
    """Run the command line, if it is ours."""
    foreign = find_foreign_package()
    if foreign is not None:
        sys.stderr.write(describe_foreign_package(*foreign) + "\n")
        sys.exit(UNUSABLE)
    from gateway.handover import take_sockets  # noqa: PLC0415 - only now is it known to be ours

    sockets = take_sockets()
    if sockets is not None:
        from gateway.commands.serving import run_server  # noqa: PLC0415 - not the command line

        sys.exit(run_server(sockets))
    from gateway.cli import main as run  # noqa: PLC0415 - nor the server

    run()


if __name__ == "__main__":
    main()
