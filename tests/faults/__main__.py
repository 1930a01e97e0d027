"""`python -m tests.faults`: the fault matrix against a real gateway; a table of what went wrong.

Exits 1 where a cell has a fate that it must not have; 3 where `--seconds` were over before the last
cell, which with `--kept FILE` the next run goes on to. What a backend sends wrong and the gateway
passes on without a word stands in the table as `silently truncated`.
"""

import argparse
import asyncio
import itertools
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import machine, report, serving
from tests.faults.cells import (
    ATTEMPT_SECONDS,
    MAX_ATTEMPTS,
    STREAM_SECONDS,
    CellResult,
    Fate,
    limit_together,
    model_name,
    run_cell,
)
from tests.faults.clients import APIS, connect, import_sdk
from tests.faults.kept_cells import KeptCells, name_cell
from tests.faults.kinds import KINDS
from tests.faults.server import SCOPES, FaultServer

BACKENDS = 3
_NOT_ALL = 3
_WELL = (Fate.ANSWERED, Fate.REFUSED)


def gateway_config(server: FaultServer) -> dict[str, Any]:
    """Return a config with a model for each kind and scope, without ejections."""
    hour = 3600.0
    return {
        "models": [
            {
                "name": model_name(kind, scope),
                "profile": "phi-3-mini",
                "context": 4096,
                "backends": [{"url": root} for root in server.roots(kind, scope, BACKENDS)],
            }
            for kind in server.kinds
            for scope in SCOPES
        ],
        "timeouts": {
            f"{name}_seconds": ATTEMPT_SECONDS
            for name in ("connect", "first_token", "unary", "stall")
        }
        | {"stream_seconds": STREAM_SECONDS},
        "retry": {"max_attempts": MAX_ATTEMPTS, "budget_start": 10_000},
        "health": {
            "eject_after_failures": 1_000_000_000,
            "probe_seconds": hour,
            "idle_probe_seconds": hour,
            "load_seconds": hour,
        },
    }


async def _measure(arguments: argparse.Namespace, kinds: tuple[str, ...]) -> int:
    kept = KeptCells(arguments.kept, f"gateway, {arguments.api}", arguments.requests)
    until = time.monotonic() + arguments.seconds
    async with FaultServer(kinds) as server:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "gateway.yaml")
            file.write_text(json.dumps(gateway_config(server)))  # noqa: ASYNC240 - at the start
            port = serving.free_port()
            command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(file)]
            command += ["--port", str(port), "--log-level", "error"]
            core = machine.cores().gateway
            url = f"http://127.0.0.1:{port}"
            with serving.running(command, serving.ROOT, core, port, "/health"):
                async with connect(arguments.api, url) as client:
                    for kind in kinds:
                        for scope, stream in itertools.product(SCOPES, (False, True)):
                            cell = name_cell(kind, scope, stream=stream)
                            if cell in kept.results:
                                continue
                            if time.monotonic() > until:
                                report.say(f"not all in {arguments.seconds:g} s; next is {cell}")
                                _show(kept.results)
                                return _NOT_ALL
                            # A kind may take minutes: 20 MB are read by this very process.
                            report.say(cell)
                            result = await run_cell(
                                client, server, kind, scope, stream=stream,
                                requests=arguments.requests,
                                together=limit_together(kind, arguments.together),
                            )  # fmt: skip
                            kept.add(cell, result)
                        _say(kind, kept.results)
    return _show(kept.results)


def _say(kind: str, results: dict[str, CellResult]) -> None:
    """Show a kind's cells on one line, as `answered/errors` and whatever else there is."""
    cells = []
    for scope, stream in itertools.product(SCOPES, (False, True)):
        result = results[name_cell(kind, scope, stream=stream)]
        odd = ", ".join(f"{n} {fate}" for fate, n in result.fates.items() if fate not in _WELL)
        well = f"{result.fates[Fate.ANSWERED]}/{result.fates[Fate.REFUSED]}"
        cells.append(f"{well:>8} {result.slowest_seconds:4.1f}s {odd:<24}")
    print(f"{kind:<40} {' | '.join(cells)}", flush=True)


def _show(results: dict[str, CellResult]) -> int:
    """Show totals and an example of everything that is not well; return the exit code."""
    total: dict[Fate, int] = dict.fromkeys(Fate, 0)
    for cell, result in results.items():
        for fate, count in result.fates.items():
            total[fate] += count
            if fate not in _WELL:
                print(f"  {fate}: {cell}: {count}x, {result.examples[fate][:150]}")
    print("  ".join(f"{fate}: {count}" for fate, count in total.items()))
    refused = sum(
        result.fates[Fate.REFUSED]
        for cell, result in results.items()
        if cell.startswith("proper, ")
    )
    if refused:
        # Whatever the others came to then says nothing of their faults.
        print(f"{refused} requests to proper servers ended with an error: the run is void")
    return int(bool(refused) or any(n for fate, n in total.items() if fate not in _WELL))


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--requests", type=int, default=100, help="requests a cell")
    parser.add_argument("--together", type=int, default=25, help="of them at once")
    parser.add_argument("--api", choices=APIS, default="chat", help="whose requests")
    parser.add_argument(
        "--kept", type=Path, help="a file of cells: those in it are not asked again"
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no cell after so long"
    )
    parser.add_argument("--only", help="a part of the kinds' names")
    arguments = parser.parse_args()
    kinds = tuple(name for name in KINDS if not arguments.only or arguments.only in name)
    if not kinds:
        parser.error(f"--only: no kind has {arguments.only!r} in its name")
    if "proper" not in kinds:
        kinds = (*kinds, "proper")
    print(f"{len(kinds)} kinds; answered/errors of {arguments.requests}, slowest, and what else;")
    print(f"{'':<40} all, unary | all, stream | first, unary | first, stream", flush=True)
    import_sdk(arguments.api)
    return asyncio.run(_measure(arguments, kinds))


if __name__ == "__main__":
    sys.exit(main())
