"""Files replaced atomically, one-line errors, and a progress bar."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.progress import TimeElapsedColumn

from calibration.plots.plot_data import Told
from calibration.progress_bar import create_progress_bar
from calibration.tables.columns import BadInput
from calibration.tables.prompts import PromptFileError
from gateway import profile
from gateway.console import OK, format_os_error, report_usage_error


def run_with_exit_code(work: Callable[[], None]) -> int:
    """Run a command; return the exit code. An error is one line on stderr."""
    try:
        work()
    except (BadInput, PromptFileError, profile.ProfileError) as error:
        return report_usage_error(error)
    except OSError as error:
        return report_usage_error(format_os_error(error))
    return OK


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none of them: every byte is on disk before the first is replaced."""
    ready: list[tuple[Path, Path]] = []
    try:
        for path, content in files.items():
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            ready.append((Path(temporary), path))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o644)
        for temporary_path, path in ready:
            temporary_path.replace(path)
    finally:
        for temporary_path, _ in ready:
            temporary_path.unlink(missing_ok=True)


def check_output_path(path: Path, inputs: list[Path]) -> None:
    """Raise BadInput, before any work, for an output path that cannot or must not be written."""
    if any(
        path == one or (path.exists() and one.exists() and path.samefile(one)) for one in inputs
    ):
        raise BadInput(f"--out {path}: is one of the files to read")
    if not path.parent.is_dir():
        raise BadInput(f"--out {path}: there is no directory {path.parent}")
    if path.is_dir():
        raise BadInput(f"--out {path}: is a directory")


def print_line(text: str) -> None:
    """Print a line on stdout."""
    sys.stdout.write(text + "\n")


@contextmanager
def show_progress() -> Iterator[Told]:
    """Show progress on a terminal."""
    bar = create_progress_bar("{task.description}", TimeElapsedColumn())
    with bar:
        task = bar.add_task("reading", total=None)
        yield lambda text: bar.update(task, description=text)
