"""A server under test: its process group, its log, and how it is known to be up."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Server:
    """A process in a group of its own, so that vLLM's engine and workers end with it."""

    def __init__(
        self, name: str, argv: list[str], port: int, log: Path, env: dict[str, str]
    ) -> None:
        self.name, self.argv, self.port, self.log = name, argv, port, log
        self.url = f"http://127.0.0.1:{port}"
        self.env = {**os.environ, **env}
        self.process: subprocess.Popen[bytes] | None = None
        self.start_seconds = 0.0

    def start(self) -> None:
        self._started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )

    def wait_until_up(self, path: str = "/health", seconds: float = 600) -> None:
        """Poll `path` until it answers 200; raise with the log's end when that does not happen."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.name} ended with {self.process.returncode}\n{self.tail()}"
                )
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + path, timeout=5).is_success:
                    self.start_seconds = time.monotonic() - self._started
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} was not up within {seconds:g} s\n{self.tail()}")

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Signal the whole group and wait for the process that leads it."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, with_signal)
        self.process.wait(30)

    def kill_member(self, title: str) -> None:
        """SIGKILL those processes of the group that call themselves `title`."""
        assert self.process is not None
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                pid = int(folder.name)
                name = (folder / "cmdline").read_bytes().decode(errors="replace")
                if os.getpgid(pid) == self.process.pid and title in name:
                    os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End the group: politely, then for certain."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kill(signal.SIGTERM)
        self.kill()

    def get(self, path: str) -> str:
        return httpx.get(self.url + path, timeout=30).raise_for_status().text

    def tail(self, characters: int = 4000) -> str:
        if not self.log.exists():
            return "(no log)"
        return self.log.read_text(errors="replace")[-characters:]


def total(exposition: str, series: str, **labels: str) -> float:
    """Add up a series of a Prometheus exposition over every label but those given."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    found = 0.0
    for line in exposition.splitlines():
        name_and_labels, _, value = line.rpartition(" ")
        name = name_and_labels.partition("{")[0]
        if name == series and all(label in name_and_labels for label in wanted):
            found += float(value)
    return found
