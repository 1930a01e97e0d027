"""What is kept and exported of each request: metrics, recent requests, the decision log."""

import os

SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which the workers of one gateway share their metrics; prometheus_client's."""

WORKERS = "JOULEGATE_WORKERS"
"""Names how many workers share the servers' watts; `joulegate serve` sets it for its own."""


def count_workers() -> int:
    """Return how many workers this gateway has, this process among them."""
    return int(os.environ.get(WORKERS, "1"))


def forget_foreign_folder() -> None:
    """Drop the folder that another program's environment names, such as that of vLLM's images.

    prometheus_client would write every value there, or fail at its import where it is not there.
    To be called before anything imports it; `joulegate serve` makes its workers a folder.
    """
    for name in (SHARED_DIR, SHARED_DIR.lower()):
        os.environ.pop(name, None)
