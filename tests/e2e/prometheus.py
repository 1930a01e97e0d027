"""A real Prometheus on a free port, its data in a folder of its own, and pages made for it.

Where there is no `prometheus` on the PATH, tests skip; those marked NEEDED before
they have started anything else.
"""

import contextlib
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.processes import Server, free_port

_MISSING = "no `prometheus` on the PATH (Debian: apt-get install prometheus)"
NEEDED = pytest.mark.skipif(shutil.which("prometheus") is None, reason=_MISSING)


class Prometheus(Server):
    """A server that scrapes `jobs` (name: targets) every so often."""

    def __init__(self, folder: Path, jobs: Mapping[str, Sequence[str]], every: str = "1s") -> None:
        if shutil.which("prometheus") is None:
            pytest.skip(_MISSING)
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every},
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(targets)}]}
                for name, targets in jobs.items()
            ],
        }
        path = folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        port = free_port()
        argv = [
            "prometheus",
            f"--config.file={path}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", argv, port, folder / "prometheus.log", {})

    def query(self, expression: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return each series' labels and (Unix seconds, value) of its samples."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30)
        found = answer.raise_for_status().json()["data"]["result"]
        return [
            (
                one["metric"],
                [(at, float(value)) for at, value in one.get("values", [one.get("value")])],
            )
            for one in found
        ]

    def value(self, expression: str) -> float:
        """Return the sum over all series; 0 where there is none."""
        return sum(samples[-1][1] for _, samples in self.query(expression))


@contextlib.contextmanager
def started(
    folder: Path, jobs: Mapping[str, Sequence[str]], every: str = "1s"
) -> Iterator[Prometheus]:
    """Run one until it is ready; end it at the end."""
    server = Prometheus(folder, jobs, every)
    server.start()
    try:
        server.wait_until_up("/-/ready", 60)
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def exporter(page: Callable[[], bytes]) -> Iterator[str]:
    """Serve what `page` returns each time it is asked; yield host:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
