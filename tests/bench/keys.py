"""`python -m tests.bench keys`: what API keys cost a request, beside a gateway without any.

Three gateways before the same backends are asked in turn by one client, whose key all take: without
keys, with a file of a hundred, and with a rate of requests and of tokens and two budgets besides,
kept in the process. CPU of the gateway over its requests; the least disturbed of its figures.
"""

import argparse
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from gateway.keys_file import BudgetEntry, KeyEntry, KeysFile, make_key, write_keys
from tests.bench import load, machine, serving
from tests.bench.report import Figure, number, say, share_of, table

_SENT: Final = "sk-0123456789abcdef"
"""The key of `tests.bench.wire`'s requests."""
_OTHERS: Final = 99
_CONNECTIONS: Final = 8
_WARM_SECONDS: Final = 1.0
_NONE, _KEYS, _LIMITS = "no keys", "keys", "rates and budgets"
_LARGE: Final = 10**9


def _write_file(path: Path, **limits: Any) -> str:
    """Write a file of keys, that of the requests among them; return the configuration of it."""
    entries = [make_key("others")[1] for _ in range(_OTHERS)]
    digest = hashlib.sha256(_SENT.encode()).hexdigest()
    entries.append(KeyEntry("key_000000000000", digest, "bench", **limits))
    write_keys(path, KeysFile(tuple(entries)))
    return f"keys: {{file: '{path}'}}\n"


@contextlib.contextmanager
def _serve(core: int, ports: list[int], folder: Path) -> Iterator[dict[str, serving.Serving]]:
    budgets = BudgetEntry("day", joules=_LARGE), BudgetEntry("month", tokens=_LARGE)
    configs = {
        _NONE: "",
        _KEYS: _write_file(folder / "keys.yaml"),
        _LIMITS: _write_file(
            folder / "limits.yaml",
            requests_per_minute=_LARGE,
            tokens_per_minute=_LARGE,
            budgets=budgets,
        ),
    }
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(serving.gateway(core, ports, more=more))
            for name, more in configs.items()
        }


def main(arguments: list[str]) -> int:
    """Measure each in turn, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench keys", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    asked = parser.parse_args(arguments)
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    cpu: dict[str, list[float]] = {}
    median: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving.upstream(cores.upstream, 0.02) as ports,
        _serve(cores.gateway, ports, Path(folder)) as gateways,
    ):
        for turn in range(asked.rounds):
            for name, gateway in gateways.items():
                say(f"{turn + 1}/{asked.rounds}, {name}")
                used = serving.Meter(gateway.pid, cores.gateway)
                sample = load.unary(gateway.port, _CONNECTIONS, asked.seconds, _WARM_SECONDS, used)
                if sample.broken:
                    raise RuntimeError(f"{name}: {sample.broken} broken")
                cpu.setdefault(name, []).append(used.cpu_seconds / sample.whole * 1e6)
                median.setdefault(name, []).append(share_of(sample.latencies, 0.5) * 1e3)
    rows = [
        [name, number(Figure.of(cpu[name]).median), number(Figure.of(median[name]).median)]
        for name in cpu
    ]
    print(table(["", "gateway CPU, us/request", "p50, ms"], rows))
    return 0
