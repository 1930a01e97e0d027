"""Run the meter's own process on this machine's GPU and hold it against NVML's counter.

    python -m tests.gpu.check_meter [--busy-seconds 5] [--load none]

It says what a gateway would say: one request alone, then two at once of which one has twice the
tokens, with nothing between. The GPU multiplies matrices meanwhile. The last line on stdout is
JSON: the counter's joules in each phase, read here by NVML, beside what the meter charged, by which
method; and the meter's own books, which must balance to the microjoule. It needs `nvidia-ml-py` and
what `joulegate meter` needs; torch too, unless `--load none`.
"""

import argparse
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.gpu.energy_counter import NvmlCounter

POST_EVERY_SECONDS = 0.25
WAIT_SECONDS = 30.0
SAMPLE = re.compile(
    r"^joulegate_meter_(energy|attributed|unsettled)_joules(?:_total)?\{(.*)\} (\S+)$",
    re.MULTILINE,
)
KIND = re.compile(r'kind="(\w+)"')


class Gateway:
    """One gateway with one backend, as the meter knows it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = 0
        self.observed: dict[int, dict[str, Any]] = {}
        self.period_seconds: float | None = None

    def post(self, *events: Sequence[Any]) -> None:
        """Say what happened just now, and take what has been settled."""
        batch = {"gateway": "check", "backends": [["gpu", ""]], "events": events}
        body = json.dumps(batch | {"received": self._received})
        answer = json.loads(self.ask("POST", "/v1/events", body))
        self.period_seconds = answer.get("period_seconds")
        for number, request, microjoules, method in answer["observations"]:
            self._received = max(self._received, number)
            self.observed[request] = {"joules": microjoules / 1e6, "method": method}
        for number, *_ in answer["spendings"]:
            self._received = max(self._received, number)

    def ask(self, method: str, path: str, body: str | None = None) -> str:
        """Return the answer's body. Raises RuntimeError unless it is a 200."""
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        link.request(method, path, body, {"Content-Type": "application/json"})
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path}: {answer.status} {text}")
        return text

    def read_books(self) -> dict[str, float]:
        """Return the joules of the devices and of each kind they were charged to."""
        books: dict[str, float] = {}
        for series, labels, value in SAMPLE.findall(self.ask("GET", "/metrics")):
            kind = KIND.search(labels)
            key = kind[1] if kind else series
            books[key] = books.get(key, 0.0) + float(value)
        return books


def run_requests(gateway: Gateway, tokens_each: dict[int, int], seconds: float) -> None:
    """Have requests answer for so long; the values are their tokens between two posts."""
    done = dict.fromkeys(tokens_each, 0)
    gateway.post(*(["b", request, 0, 0, 1, 0] for request in tokens_each))
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for request, tokens in tokens_each.items():
            done[request] += tokens
        gateway.post(*(["p", request, 0, done[request]] for request in done))
        time.sleep(POST_EVERY_SECONDS)
    gateway.post(*(["e", request, 0, done[request] + tokens_each[request]] for request in done))


def rest(gateway: Gateway, seconds: float) -> None:
    """Have nothing happen for so long."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        gateway.post()
        time.sleep(POST_EVERY_SECONDS)


def load_gpu(over: threading.Event) -> None:
    """Multiply matrices until it is over."""
    import torch

    left = torch.randn((8192, 8192), device="cuda", dtype=torch.bfloat16)
    while not over.is_set():
        for _ in range(20):
            left @ left
        torch.cuda.synchronize()


def warm_gpu() -> None:
    """Have the context and the kernels there before anything is measured."""
    over = threading.Event()
    threading.Timer(1.0, over.set).start()
    load_gpu(over)


def measure_phase(counter: NvmlCounter, load: bool, run: Callable[[], None]) -> float:
    """Return the counter's joules while it ran."""
    over = threading.Event()
    loader = threading.Thread(target=load_gpu, args=(over,), daemon=True)
    before = counter.read()
    if load:
        loader.start()
    run()
    over.set()
    if load:
        loader.join()
    return (counter.read() - before) / 1e6


def check_meter(gateway: Gateway, *, busy_seconds: float, load: bool) -> dict[str, Any]:
    """Return what the counter showed, what was charged, and whether the books balance."""
    counter = NvmlCounter()
    if load:
        warm_gpu()
    rest(gateway, 3.0)
    start = counter.read(), gateway.read_books()
    phases = {
        "alone": measure_phase(counter, load, lambda: run_requests(gateway, {1: 20}, busy_seconds)),
        "idle": measure_phase(counter, False, lambda: rest(gateway, 3.0)),
        "two": measure_phase(
            counter, load, lambda: run_requests(gateway, {2: 40, 3: 20}, busy_seconds)
        ),
    }
    ends_at = time.monotonic() + WAIT_SECONDS
    while len(gateway.observed) < 3 and time.monotonic() < ends_at:
        rest(gateway, 1.0)
    end = counter.read(), gateway.read_books()
    books = {kind: value - start[1].get(kind, 0.0) for kind, value in end[1].items()}
    return {
        "gpu": counter.describe(),
        "period_seconds": gateway.period_seconds,
        "counter_joules": phases,
        "observed": gateway.observed,
        "counter_joules_in_all": (end[0] - start[0]) / 1e6,
        "books_joules": books,
        "unbalanced_joules": 2 * end[1]["energy"] - sum(end[1].values()),
    }


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> None:
    """Start the meter, check it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy-seconds", type=float, default=5.0)
    parser.add_argument("--load", choices=("torch", "none"), default="torch")
    arguments = parser.parse_args(argv)
    port = find_port()
    command = [sys.executable, "-m", "gateway", "meter"]
    command += ["--source", "nvml", "--device", "0", "--port", str(port)]
    with subprocess.Popen(command) as meter:
        try:
            gateway = Gateway(port)
            ends_at = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    gateway.read_books()
                    break
                except OSError:
                    if meter.poll() is not None or time.monotonic() > ends_at:
                        raise
                    time.sleep(0.2)
            found = check_meter(
                gateway, busy_seconds=arguments.busy_seconds, load=arguments.load == "torch"
            )
        finally:
            meter.terminate()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
