"""`python -m tests.bench`: what the gateway costs, in one run; docs/benchmarks.md explains it.

`python -m tests.bench peers`: the gateway beside other gateways, in one run.
`python -m tests.bench guard`: fails where a request or a chunk has become much dearer.
`python -m tests.bench holds`: idle connections and live streams, held at once.
`python -m tests.bench workers`, `burst`, `aborts`, `soak`: two workers beside one, streams begun at
once, how soon a backend learns that a client has left, and what many requests leave behind.
`python -m tests.bench keys`: what API keys, rates and budgets cost a request.
`python -m tests.bench scrape`: how long a page of 50 tenants' metrics holds the event loop.
`python -m tests.bench pressure`: slow clients, overload, a backend drained by hand.
`python -m tests.bench energy` and `... metering`: how exact metered joules are, and their cost.
`python -m tests.bench deciding`: the figures behind docs/deciding.md's pictures.
`python -m tests.bench refits`: refits held against the physical truth, twenty windows a drill.
`python -m tests.bench savings`: what a switchback of forty blocks can tell, a hundred runs.
`python -m tests.bench forms`: how much better joules are predicted by a form that knows the load.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.bench import (
    aborts,
    burst,
    deciding,
    energy,
    forms,
    guard,
    holds,
    keys,
    load,
    machine,
    metering,
    peers,
    pressure,
    refits,
    savings,
    scrape,
    serving,
    soak,
    workers,
)
from tests.bench.report import Figure, say, share_of
from tests.bench.shown import BUSY, show

_PARTS = ("startup", "unary", "streams", "decisions")
_INTERVAL_SECONDS = 0.02
"""50 tokens a second."""
_LEFT_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how often."""

    parts: tuple[str, ...]
    rounds: int
    seconds: float
    streams: tuple[int, ...]
    stream_tokens: int
    stream_rounds: int
    stream_seconds: float
    decision_seconds: float
    starts: int
    decision_log: bool


Rounds = dict[str, list[float]]
"""Each figure's value in every round."""


class Bench:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._cores = machine.cores()
        self.result: dict[str, Any] = {"machine": machine.describe()}

    def run(self) -> None:
        """Measure what the plan asks for."""
        plan, cores = self._plan, self._cores
        os.sched_setaffinity(0, {cores.load})
        with serving.upstream(cores.upstream, _INTERVAL_SECONDS) as ports:
            if "startup" in plan.parts:
                self._starts(ports)
            if "unary" in plan.parts or "streams" in plan.parts:
                log = plan.decision_log
                with serving.gateway(cores.gateway, ports, decision_log=log) as gateway:
                    memory = {"fresh": machine.memory_mb(gateway.pid)[0]}
                    if "unary" in plan.parts:
                        self._unary(ports[0], gateway)
                        memory["after unary"] = machine.memory_mb(gateway.pid)[0]
                    if "streams" in plan.parts:
                        self._streams(ports[0], gateway)
                        memory["after streams"] = machine.memory_mb(gateway.pid)[0]
                    memory["peak"] = machine.memory_mb(gateway.pid)[1]
                    self.result["memory_mb"] = memory
                    self.result["left_in_flight"] = _left(gateway.port)
        if "decisions" in plan.parts:
            self._decisions()

    def _starts(self, ports: list[int]) -> None:
        seconds = []
        for turn in range(self._plan.starts):
            say(f"start {turn + 1}/{self._plan.starts}")
            with serving.gateway(self._cores.gateway, ports) as gateway:
                seconds.append(gateway.started_seconds)
        self.result["start_seconds"] = Figure.of(seconds)._asdict()

    def _unary(self, direct: int, gateway: serving.Serving) -> None:
        plan = self._plan

        def measure(name: str, port: int, seen: Rounds) -> None:
            meter = serving.Meter(gateway.pid, self._cores.gateway)
            one = load.unary(port, 1, plan.seconds, 0.2, meter)
            _add(seen, "p50_ms", share_of(one.latencies, 0.5) * 1e3)
            _add(seen, "p99_ms", share_of(one.latencies, 0.99) * 1e3)
            many = load.unary(port, BUSY, plan.seconds, 0.3, meter)
            _add(seen, "requests_per_second", many.whole / many.seconds)
            _add(seen, "busy_p99_ms", share_of(many.latencies, 0.99) * 1e3)
            _add(seen, "broken", one.broken + many.broken)
            if name == "through":
                _add(seen, "cpu_us_per_request", meter.cpu_seconds / max(many.whole, 1) * 1e6)
                _add(seen, "cpu_share", meter.cpu_share)
                _add(seen, "others_share", meter.others_share)

        self.result["unary"] = self._beside("unary", plan.rounds, direct, gateway.port, measure)

    def _streams(self, direct: int, gateway: serving.Serving) -> None:
        plan = self._plan
        self.result["streams"] = {}
        for count in plan.streams:

            def measure(name: str, port: int, seen: Rounds, count: int = count) -> None:
                meter = serving.Meter(gateway.pid, self._cores.gateway)
                sample = load.streams(
                    port, count, plan.stream_tokens, _INTERVAL_SECONDS, plan.stream_seconds, meter
                )
                for label, values in (("ttft", sample.firsts), ("gap", sample.gaps)):
                    _add(seen, f"{label}_p50_ms", share_of(values, 0.5) * 1e3)
                    _add(seen, f"{label}_p99_ms", share_of(values, 0.99) * 1e3)
                _add(seen, "tokens_per_second", sample.tokens / sample.seconds)
                _add(seen, "whole", sample.whole)
                _add(seen, "broken", sample.broken)
                if name == "through":
                    _add(seen, "cpu_share", meter.cpu_share)
                    _add(seen, "others_share", meter.others_share)

            what = f"{count} streams"
            self.result["streams"][str(count)] = self._beside(
                what, plan.stream_rounds, direct, gateway.port, measure
            )

    def _beside(
        self,
        what: str,
        rounds: int,
        direct: int,
        through: int,
        measure: Callable[[str, int, Rounds], None],
    ) -> dict[str, dict[str, Any]]:
        """Measure both ways in turn, so that what disturbs one disturbs the other."""
        seen: dict[str, Rounds] = {"direct": {}, "through": {}}
        for turn in range(rounds):
            for name, port in (("direct", direct), ("through", through)):
                say(f"{what} {turn + 1}/{rounds} {name}")
                measure(name, port, seen[name])
        return {
            name: {figure: Figure.of(values)._asdict() for figure, values in figures.items()}
            for name, figures in seen.items()
        }

    def _decisions(self) -> None:
        say("decision times")
        command = [sys.executable, "-m", "tests.bench.decisions", f"{self._plan.decision_seconds}"]
        with machine.on_core(self._cores.gateway):
            done = subprocess.run(command, cwd=serving.ROOT, check=True, capture_output=True)
        self.result["decisions"] = json.loads(done.stdout)


def _add(seen: Rounds, figure: str, value: float) -> None:
    seen.setdefault(figure, []).append(value)


def _left(port: int) -> int:
    """Return what is still in flight once the clients have gone; 0 is right."""
    until = time.perf_counter() + _LEFT_SECONDS
    while (left := serving.inflight(port)) and time.perf_counter() < until:
        time.sleep(0.1)
    return left


def _plan(arguments: argparse.Namespace) -> Plan:
    seconds = arguments.seconds
    parts = tuple(arguments.only.split(",")) if arguments.only else _PARTS
    if arguments.quick:
        return Plan(
            parts=parts,
            rounds=2,
            seconds=seconds or 0.7,
            streams=(100,),
            stream_tokens=50,
            stream_rounds=2,
            stream_seconds=seconds or 1.5,
            decision_seconds=0.05,
            starts=2,
            decision_log=not arguments.no_decision_log,
        )
    return Plan(
        parts=parts,
        rounds=arguments.rounds,
        seconds=seconds or 2.0,
        streams=tuple(int(count) for count in arguments.streams.split(",")),
        stream_tokens=100,
        stream_rounds=max(1, (arguments.rounds + 1) // 2),
        stream_seconds=max(4.0, 2 * (seconds or 2.0)),
        decision_seconds=0.5,
        starts=arguments.rounds,
        decision_log=not arguments.no_decision_log,
    )


def main() -> int:
    """Read the arguments, measure, print."""
    others = {
        "aborts": aborts.main,
        "burst": burst.main,
        "deciding": deciding.main,
        "energy": energy.main,
        "forms": forms.main,
        "guard": guard.main,
        "holds": holds.main,
        "keys": keys.main,
        "metering": metering.main,
        "peers": peers.main,
        "pressure": pressure.main,
        "refits": refits.main,
        "savings": savings.main,
        "scrape": scrape.main,
        "soak": soak.main,
        "workers": workers.main,
    }
    if len(sys.argv) > 1 and sys.argv[1] in others:
        return others[sys.argv[1]](sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; rough figures")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON")
    parser.add_argument("--seconds", type=float, help="length of one unary measurement")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are shown")
    parser.add_argument("--streams", default="200,1000", help="numbers of streams")
    parser.add_argument("--only", help=f"some of {','.join(_PARTS)}")
    parser.add_argument("--no-decision-log", action="store_true", help="serve without one")
    arguments = parser.parse_args()
    unknown = set((arguments.only or _PARTS[0]).split(",")) - set(_PARTS)
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))}: choose from {', '.join(_PARTS)}")
    if not hasattr(os, "sched_setaffinity"):
        parser.error("needs Linux: it pins processes to cores and reads /proc")
    if len(os.sched_getaffinity(0)) == 1:
        say("one core for both sides: figures are lower than they would be on two")
    machine.allow_many_files()
    bench = Bench(_plan(arguments))
    bench.run()
    print(json.dumps(bench.result, indent=2) if arguments.json else show(bench.result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
