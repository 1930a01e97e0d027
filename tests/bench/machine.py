"""The machine: which core is whose, what a process has used, what is installed."""

import contextlib
import importlib.metadata
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")
_SHOWN = (
    "joulegate", "litestar", "uvicorn", "uvloop", "httptools", "aiohttp", "msgspec", "tiktoken",
    "prometheus-client",
)  # fmt: skip


class Cores(NamedTuple):
    """One core is the gateway's; the other side shares the second, or has one each of more."""

    gateway: int
    load: int
    upstream: int


def cores() -> Cores:
    """Share out the cores this process may use."""
    mine = sorted(os.sched_getaffinity(0))
    return Cores(mine[-1], mine[0], mine[1] if len(mine) > 2 else mine[0])


@contextlib.contextmanager
def on_core(core: int | set[int]) -> Iterator[None]:
    """Run, and start processes, on one core, or on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if isinstance(core, int) else core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_files() -> None:
    """Raise the limit on open files to what is allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Used(NamedTuple):
    """CPU seconds so far: one process's, and all of one core's."""

    process: float
    core: float


def used(pid: int, core: int) -> Used:
    """Read the kernel's counters (a hundredth of a second fine)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    process = int(fields[11]) + int(fields[12])
    with Path("/proc/stat").open(encoding="ascii") as lines:
        label = f"cpu{core} "
        line = next(line for line in lines if line.startswith(label))
    # user nice system idle iowait irq softirq steal; guests are counted in user already
    ticks = [int(value) for value in line.split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return Used(process / _TICK, busy / _TICK)


def memory_mb(pid: int) -> tuple[float, float]:
    """Return the resident set now, and the largest there was, in MB (10^6 bytes)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    now, most = (int(found[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))
    return now, most


def describe() -> dict[str, str]:
    """Return what a reader needs to place the figures."""
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "?")
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "cpu": f"{os.cpu_count()} cores, {model}",
        "load before": load,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in _SHOWN),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
