"""The processes that are measured: the upstream and the gateway, each on its core."""

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.bench import machine

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_PATIENCE_SECONDS = 30.0
# As in production the server's name for a model is not the client's, so answers are rewritten.
_MODELS = {
    "phi-3-mini": ("microsoft/Phi-3-mini-4k-instruct", 4096),
    "mistral-7b": ("mistralai/Mistral-7B-Instruct-v0.2", 32768),
    "falcon-7b": ("tiiuae/falcon-7b-instruct", 2048),
}
MODELS: Final = len(_MODELS)
"""How many backends there are, one for each."""


class Serving(NamedTuple):
    """A process that listens; `started_seconds` is how long it took to be ready."""

    pid: int
    port: int
    started_seconds: float
    folder: Path = ROOT
    """Where its files are."""


@contextlib.contextmanager
def upstream(core: int, interval: float) -> Iterator[list[int]]:
    """Run the backends, one port for each model."""
    ports = [free_port() for _ in _MODELS]
    named = [f"{port}={name}" for port, (name, _) in zip(ports, _MODELS.values(), strict=True)]
    command = [sys.executable, "-m", "tests.bench.upstream", f"{interval * 1e3:g}", *named]
    with running(command, ROOT, core, ports[-1], "/health"):
        yield ports


@contextlib.contextmanager
def gateway(
    core: int | set[int],
    ports: list[int],
    *,
    decision_log: bool = True,
    meter: str | None = None,
    more: str = "",
    root: Path = ROOT,
    **how: Any,
) -> Iterator[Serving]:
    """Run `joulegate serve` of the tree at `root` before those backends, until it is ready.

    `more` is configuration besides; `how` goes to `configured`.
    """
    config = _config(ports, meter, decision_log=decision_log) + more
    with configured(core, config, root, **how) as serving:
        yield serving


@contextlib.contextmanager
def configured(
    core: int | set[int],
    config: str,
    root: Path = ROOT,
    *,
    workers: int = 1,
    module: str = "gateway",
) -> Iterator[Serving]:
    """Run it with this config; relative paths in it are in the process's folder.

    `module` is what runs it as `python -m`.
    """
    with tempfile.TemporaryDirectory(prefix="joulegate-bench-") as folder:
        path = Path(folder) / "gateway.yaml"
        path.write_text(config, encoding="utf-8")
        port = free_port()
        command = [sys.executable, "-m", module, "serve", "--config", str(path)]
        command += ["--port", str(port), "--log-level", "warning", "--workers", str(workers)]
        with running(command, root, core, port, "/ready") as serving:
            yield serving._replace(folder=Path(folder))


@contextlib.asynccontextmanager
async def beside_loop(
    process: contextlib.AbstractContextManager[Serving],
) -> AsyncIterator[Serving]:
    """Run a process whose start and end are waited for while this event loop goes on serving it."""
    up = await asyncio.to_thread(process.__enter__)
    try:
        yield up
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)


def inflight(port: int) -> int:
    """Ask the gateway how many requests it is serving."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return int(json.loads(connection.getresponse().read())["inflight"])
    finally:
        connection.close()


class Meter:
    """Reads, around a measurement, the CPU of the gateway and what others took of its core."""

    def __init__(self, pid: int, core: int) -> None:
        self._pid = pid
        self._core = core
        self._before = machine.Used(0.0, 0.0)
        self._began = 0.0
        self.cpu_seconds = 0.0
        self.cpu_share = 0.0
        self.others_share = 0.0

    def __enter__(self) -> Self:
        self._before = machine.used(self._pid, self._core)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        wall = time.perf_counter() - self._began
        after = machine.used(self._pid, self._core)
        self.cpu_seconds = after.process - self._before.process
        self.cpu_share = self.cpu_seconds / wall
        busy = (after.core - self._before.core) / wall
        self.others_share = max(0.0, busy - self.cpu_share)


def _config(ports: list[int], meter: str | None, *, decision_log: bool) -> str:
    metered = f", meter: '{meter}'" if meter else ""
    lines = ["models:"]
    for port, (name, (served, context)) in zip(ports, _MODELS.items(), strict=True):
        lines += [
            f"  - name: {name}",
            f"    served_name: {served}",
            f"    context: {context}",
            f"    backends: [{{url: 'http://{HOST}:{port}'{metered}}}]",
        ]
    if decision_log:
        lines.append("log: {decisions: decisions.jsonl}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def running(
    command: list[str],
    cwd: Path,
    core: int | set[int],
    port: int,
    path: str,
    patience_seconds: float = _PATIENCE_SECONDS,
) -> Iterator[Serving]:
    """Run a command on a core until its port answers 200 at `path`, and end it afterwards."""
    with tempfile.TemporaryFile() as said:
        with machine.on_core(core):
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said)
        try:
            while not _answers(port, path):
                late = time.perf_counter() - began > patience_seconds
                if process.poll() is not None or late:
                    said.seek(0)
                    last = said.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{' '.join(command)} did not come up: {last}")
                time.sleep(0.002)
            yield Serving(process.pid, port, time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int, path: str) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
