"""The one bar of progress: on stderr where that is a terminal, and nowhere else."""

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from gateway.console import err


def create_progress_bar(
    text: str, *columns: ProgressColumn, transient: bool = True, speed_seconds: float = 30.0
) -> Progress:
    """Return a bar, not started: `text` before it, the columns after it.

    `transient`: it is gone when it stops. `speed_seconds`: over how long the rest is estimated.
    """
    return Progress(
        TextColumn(text, markup=False),
        BarColumn(),
        *columns,
        console=err,
        transient=transient,
        disable=not err.is_terminal,
        speed_estimate_period=speed_seconds,
    )
