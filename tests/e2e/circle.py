"""The whole circle as processes: simulated backends, a meter, two gateways, a real Prometheus.

What the backends really cost is in `truth.json`; the gateways begin with another profile, in
`live.json`. Every gateway process keeps a decision log of its own.
"""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiohttp
import yaml

from calibration.recalibrate.sums import SUMS_METRIC
from tests.e2e.processes import Server, free_port, total
from tests.e2e.prometheus import Prometheus, started

JOULEGATE = Path(sys.executable).with_name("joulegate")
SPEED = 12.0
CONTEXT = {"phi-3-mini": 4096, "mistral-7b": 8192}
TRUTH = {
    "phi-3-mini": ([0.004, 5e-6, 0.012, 0.0, 0.0001], [5.0, 0.02, 0.4, 0.0, 3.5]),
    "mistral-7b": ([0.006, 8e-6, 0.018, 0.0, 0.00015], [9.0, 0.04, 0.8, 0.0, 6.0]),
}
"""Coefficients of the load form: seconds, joules."""
OUTPUT = {"slope": 0.05, "intercept": 90.0}


def truth():
    """What a profile file would say if it knew."""
    return {
        name: {
            "accuracy": {"default": 0.7},
            "output": OUTPUT,
            "seconds": {"form": "load", "coefficients": seconds},
            "joules": {"form": "load", "coefficients": joules},
        }
        for name, (seconds, joules) in TRUTH.items()
    }


def live():
    """What the gateways begin with: half again as slow and hungry, and knowing nothing of load."""
    return {
        name: {
            "accuracy": {"default": 0.7},
            "output": {"slope": 0.0, "intercept": 150.0},
            "seconds": {
                "form": "interaction",
                "coefficients": [1.5 * b / SPEED for b in seconds[:4]],
            },
            "joules": {
                "form": "interaction",
                "coefficients": [5.0, 0.05, 1.5 * (joules[2] + joules[4] / 10), 0.0],
            },
            "prefill": {"base_joules": joules[0], "joules_per_token": joules[1]},
        }
        for name, (seconds, joules) in TRUTH.items()
    }


@dataclass
class Answered:
    """A request that was answered, with what it truly cost."""

    id: str
    model: str
    joules: float
    seconds: float


@dataclass
class Circle:
    """Everything that runs."""

    folder: Path
    gateways: list[Server]
    prometheus: Prometheus | None = None
    logs: list[list[Path]] = field(default_factory=lambda: [[], []])
    """Of each gateway, the decision log of each process that it was."""

    @property
    def profile(self) -> Path:
        return self.folder / "live.json"

    def gateway(self, place: int) -> Server:
        """Start a gateway; its second start is another process in the same place."""
        server = self.gateways[place]
        log = self.folder / f"decisions-{place}-{len(self.logs[place])}.jsonl"
        self.logs[place].append(log)
        path = self.folder / f"gateway-{place}.yaml"
        config = yaml.safe_load((self.folder / "gateway.yaml").read_text())
        path.write_text(yaml.safe_dump(config | {"log": {"decisions": log.name}}))
        server.start()
        server.wait_until_up("/ready", 60)
        return server

    def restart(self, place: int) -> None:
        """End a gateway as an orchestrator does, and start it anew."""
        self.gateways[place].kill(signal.SIGTERM)
        self.gateway(place)

    def rows(self, place: int, process: int = -1) -> list[dict]:
        """Return a gateway process's decision log."""
        path = self.logs[place][process]
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def all_rows(self) -> Iterator[list[dict]]:
        """Yield the log of every process there was."""
        for place, logs in enumerate(self.logs):
            for process in range(len(logs)):
                yield self.rows(place, process)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of joulegate's."""
        return subprocess.run(
            [JOULEGATE, *arguments], capture_output=True, text=True, timeout=120, check=False
        )


@contextlib.contextmanager
def circle(folder: Path) -> Iterator[Circle]:
    """Start it all; end it all."""
    with contextlib.ExitStack() as stack:
        for name, models in (("truth", truth()), ("live", live())):
            (folder / f"{name}.json").write_text(json.dumps({"version": 1, "models": models}))
        servers = {name: _backend(folder, name) for name in TRUTH}
        for server in servers.values():
            _up(stack, server)
        meter = _meter(folder, servers)
        _up(stack, meter)
        config = {
            "models": [
                {
                    "name": name,
                    "context": CONTEXT[name],
                    "backends": [{"url": server.url, "meter": f"{meter.url}/{name}"}],
                }
                for name, server in servers.items()
            ],
            "profile": "live.json",
            "health": {"load_seconds": 0.1},
            "limits": {"requests_kept": 100},
        }
        (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
        made = Circle(folder, [_gateway(folder, place) for place in range(2)])
        for place, server in enumerate(made.gateways):
            stack.callback(server.close)
            made.gateway(place)
        targets = [server.url.removeprefix("http://") for server in made.gateways]
        made.prometheus = stack.enter_context(started(folder, {"gateway": targets}))
        yield made


def _up(stack: contextlib.ExitStack, server: Server) -> None:
    stack.callback(server.close)
    server.start()
    server.wait_until_up("/health", 60)


def _server(folder: Path, name: str, *arguments: str) -> Server:
    port = free_port()
    argv = [str(JOULEGATE), *arguments, "--port", str(port)]
    return Server(name, argv, port, folder / f"{name}.log", {})


def _backend(folder: Path, name: str) -> Server:
    options = ("--simulate", "--speed", f"{SPEED}", "--profile", str(folder / "truth.json"))
    return _server(folder, name, "backend", name, *options)


def _meter(folder: Path, backends: dict[str, Server]) -> Server:
    ledgers = [
        {"name": name, "source": "simulator", "url": one.url, "backends": [{"url": one.url}]}
        for name, one in backends.items()
    ]
    path = folder / "meter.yaml"
    path.write_text(yaml.safe_dump({"ledgers": ledgers, "hz": 100}))
    return _server(folder, "meter", "meter", "--config", str(path))


def _gateway(folder: Path, place: int) -> Server:
    config = str(folder / f"gateway-{place}.yaml")
    return _server(folder, f"gateway-{place}", "serve", "--config", config)


class Traffic:
    """Clients of the gateways: so many at once at each, each asking again once answered."""

    def __init__(self, gateways: list[Server], seed: int) -> None:
        self._gateways = gateways
        self._rng = random.Random(seed)
        self._seed = seed
        self._sent = 0
        self.answered: list[Answered] = []
        self.failed = 0

    async def send(self, count: int, path: Sequence[tuple[float, int]]) -> None:
        """Send so many requests, so many at once at each model of each gateway.

        `path` is of points (share of the requests, how many at once); between them the number
        moves evenly, for a jump would show a request another load than it then has.
        """
        first = self._sent
        last = first + count

        def level() -> float:
            at = (self._sent - first) / count
            for (begin, low), (end, high) in pairwise(path):
                if at <= end:
                    return low + (high - low) * (at - begin) / (end - begin)
            return path[-1][1]

        async def client(server, model, number):
            while self._sent < last:
                if number < level():
                    self._sent += 1
                    await self._one(http, server.url, model)
                else:
                    await asyncio.sleep(0.05)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            await asyncio.gather(
                *(
                    client(server, model, number)
                    for server in self._gateways
                    for model in TRUTH
                    for number in range(max(most for _, most in path))
                )
            )

    async def _one(self, http, url, model):
        text = " joule" * self._rng.randint(5, 400)
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        if self._rng.random() < 0.4:
            body |= {"max_tokens": self._rng.randint(20, 300), "ignore_eos": True}
        name = f"{self._seed}-{self._rng.getrandbits(64):x}"
        answer = None
        while answer is None:
            answer = await self._ask(http, url, body, name)
        told = answer["simulated"]
        self.answered.append(Answered(name, model, told["energy_joules"], told["seconds"] / SPEED))

    async def _ask(self, http, url, body, name):
        """Return the answer; None where the gateway is not there just now."""
        headers = {"x-request-id": name}
        try:
            async with http.post(
                f"{url}/v1/chat/completions", json=body, headers=headers
            ) as response:
                answer = await response.json()
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.05)
            return None
        if response.status != 200:
            self.failed += 1
            return None
        return answer


def settled(made: Circle, count: int, seconds: float = 60.0) -> None:
    """Wait until all of these requests are logged, and Prometheus has those that the sums have."""
    deadline = time.monotonic() + seconds
    metric = f'{SUMS_METRIC}{{basis="costs",quantity="joules",term="n"}}'
    while True:
        logged = sum(len(rows) for rows in made.all_rows())
        held = sum(
            total(server.get("/metrics"), SUMS_METRIC, basis="costs", quantity="joules", term="n")
            for server in made.gateways
        )
        if logged == count and held == made.prometheus.value(metric):
            return
        assert time.monotonic() < deadline, (logged, held, made.prometheus.value(metric))
        time.sleep(0.3)
