"""What metering costs the gateway: CPU with streams, and latency while the meter is dead.

`python -m tests.bench metering`. Two gateways before the same backends, one of them with a meter,
are measured in turn. Backends and meter share a core with the client; the counter is made up.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.bench import load, machine, serving
from tests.bench.report import Figure, number, say, share_of, table

_INTERVAL_SECONDS = 1 / 30
_STREAMS = 300
_STREAM_TOKENS = 100
_PER_SECOND = 100
_UP = b"joulegate_meter_up{"
_PATIENCE_SECONDS = 20.0

Rounds = dict[str, list[float]]


class Bench:
    """One run."""

    def __init__(self, *, rounds: int, seconds: float) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._cores = machine.cores()
        self._meter_port = serving.free_port()
        self.result: dict[str, Any] = {"machine": machine.describe()}

    def run(self) -> None:
        """Measure."""
        os.sched_setaffinity(0, {self._cores.load})
        core, url = self._cores.gateway, f"http://{serving.HOST}:{self._meter_port}"
        with (
            serving.upstream(self._cores.upstream, _INTERVAL_SECONDS) as ports,
            serving.gateway(core, ports, meter=url) as metered,
        ):
            with self._metering(), serving.gateway(core, ports) as plain:
                _until_up(metered.port)
                self.result["streams"] = self._streams({"off": plain, "on": metered})
            self.result["unary"] = self._kill(metered)

    @contextlib.contextmanager
    def _metering(self) -> Iterator[int]:
        """Run the meter; yields its process id."""
        command = [sys.executable, "-m", "tests.bench.counter", str(self._meter_port)]
        with serving.running(
            command, serving.ROOT, self._cores.upstream, self._meter_port, "/health"
        ) as meter:
            yield meter.pid

    def _streams(self, gateways: dict[str, serving.Serving]) -> dict[str, dict[str, Any]]:
        seen: dict[str, Rounds] = {name: {} for name in gateways}
        for turn in range(self._rounds):
            for name, gateway in gateways.items():
                say(f"{_STREAMS} streams {turn + 1}/{self._rounds}, metering {name}")
                used = serving.Meter(gateway.pid, self._cores.gateway)
                sample = load.streams(
                    gateway.port, _STREAMS, _STREAM_TOKENS, _INTERVAL_SECONDS, self._seconds, used
                )
                _add(seen[name], "cpu_us_per_token", used.cpu_seconds / sample.tokens * 1e6)
                _add(seen[name], "cpu_share", used.cpu_share)
                _add(seen[name], "gap_p99_ms", share_of(sample.gaps, 0.99) * 1e3)
                _add(seen[name], "broken", sample.broken)
                _add(seen[name], "others_share", used.others_share)
        return _figures(seen)

    def _kill(self, gateway: serving.Serving) -> dict[str, dict[str, Any]]:
        seen: dict[str, Rounds] = {"alive": {}, "killed": {}}
        for turn in range(self._rounds):
            with self._metering() as pid:
                _until_up(gateway.port)
                for name, rounds in seen.items():
                    say(f"{_PER_SECOND} requests/s {turn + 1}/{self._rounds}, meter {name}")
                    striking = _Striking(pid) if name == "killed" else contextlib.nullcontext()
                    sample = load.paced(gateway.port, _PER_SECOND, self._seconds, 1.0, striking)
                    for label, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
                        _add(rounds, label, share_of(sample.latencies, share) * 1e3)
                    _add(rounds, "per_second", sample.whole / sample.seconds)
                    _add(rounds, "broken", sample.broken)
        return _figures(seen)


class _Striking(contextlib.AbstractContextManager[None]):
    """Kills a process as what is measured begins."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        pass


def _until_up(port: int) -> None:
    deadline = time.perf_counter() + _PATIENCE_SECONDS
    while time.perf_counter() < deadline:
        with urllib.request.urlopen(f"http://{serving.HOST}:{port}/metrics", timeout=5) as page:
            lines = [line for line in page.read().splitlines() if line.startswith(_UP)]
        if lines and all(line.endswith(b" 1.0") for line in lines):
            return
        time.sleep(0.1)
    raise RuntimeError("the gateway does not find its meter")


def _add(seen: Rounds, figure: str, value: float) -> None:
    seen.setdefault(figure, []).append(value)


def _figures(seen: dict[str, Rounds]) -> dict[str, dict[str, Any]]:
    return {
        name: {figure: Figure.of(values)._asdict() for figure, values in figures.items()}
        for name, figures in seen.items()
    }


_STREAM_ROWS = (
    ("gateway CPU, us/token", "cpu_us_per_token"),
    ("gateway CPU, of a core", "cpu_share"),
    ("gap p99, ms", "gap_p99_ms"),
    ("broken", "broken"),
    ("taken of that core by others", "others_share"),
)
_UNARY_ROWS = (
    ("p50, ms", "p50_ms"),
    ("p99, ms", "p99_ms"),
    ("requests/s", "per_second"),
    ("broken", "broken"),
)


def show(result: dict[str, Any]) -> str:
    """Return the run as text."""
    about = "\n".join(f"{key:12} {value}" for key, value in result["machine"].items())
    streams = f"{_STREAMS} streams, {1 / _INTERVAL_SECONDS:.0f} tokens/s"
    unary = f"unary, {_PER_SECOND} requests/s"
    tables = (
        _beside(streams, "metering off", "on", list(result["streams"].values()), _STREAM_ROWS),
        _beside(unary, "meter alive", "killed", list(result["unary"].values()), _UNARY_ROWS),
    )
    return "\n\n".join((about, *tables))


def _beside(
    title: str, one: str, two: str, both: list[dict[str, Any]], rows: tuple[tuple[str, str], ...]
) -> str:
    cells = []
    for label, figure in rows:
        before, after = (side[figure] for side in both)
        ratio = number(after["median"] / before["median"]) if before["median"] else ""
        spread = f"{number(after['low'])} to {number(after['high'])}"
        difference = number(after["median"] - before["median"])
        cells.append(
            (label, number(before["median"]), number(after["median"]), difference, ratio, spread)
        )
    return table((title, one, two, "difference", "ratio", "spread"), cells)


def main(arguments: list[str]) -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench metering", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are shown")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one measurement")
    given = parser.parse_args(arguments)
    machine.allow_many_files()
    bench = Bench(rounds=given.rounds, seconds=given.seconds)
    bench.run()
    print(json.dumps(bench.result, indent=2) if given.json else show(bench.result))
    return 0
