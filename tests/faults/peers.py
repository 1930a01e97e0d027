"""`python -m tests.faults.peers`: the fault matrix against other gateways.

Each peer is the release from PyPI that `make bench-peers` measures, set up as its documentation
says for three servers of a model: two retries, a second for each attempt where it can be told one.
The gateway itself: `python -m tests.faults`. The totals of both are docs/reliability.md's table.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.bench import machine, peers, serving
from tests.faults.answer_kinds import BEFORE_READING, REFUSED
from tests.faults.cells import (
    ATTEMPT_SECONDS,
    MAX_ATTEMPTS,
    CellResult,
    Fate,
    limit_together,
    model_name,
    run_cell,
)
from tests.faults.clients import connect
from tests.faults.kept_cells import KeptCells, name_cell
from tests.faults.kinds import KINDS
from tests.faults.server import SCOPES, FaultServer

BACKENDS = 3
_PATIENCE_SECONDS = 180.0


def configure_litellm(server: FaultServer) -> dict[str, Any]:
    """Return LiteLLM's config: a model group of three deployments for each cell."""
    return {
        "model_list": [
            {
                "model_name": model_name(kind, scope),
                "litellm_params": {
                    "model": "openai/phi-3-mini",
                    "api_base": f"{root}/v1",
                    "api_key": "none",
                    "timeout": ATTEMPT_SECONDS,
                    "stream_timeout": ATTEMPT_SECONDS,
                    "max_retries": 0,
                },
            }
            for kind in server.kinds
            for scope in SCOPES
            for root in server.roots(kind, scope, BACKENDS)
        ],
        "router_settings": {"num_retries": MAX_ATTEMPTS - 1, "disable_cooldowns": True},
        "litellm_settings": {"telemetry": False},
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }


def configure_envoy(server: FaultServer, port: int) -> dict[str, Any]:
    """Return Envoy's config: a cluster of three endpoints for each cell, found by the path."""
    kind_url = "type.googleapis.com/envoy.extensions.filters"
    retry = {
        "retry_on": "5xx,reset,connect-failure,retriable-status-codes",
        "retriable_status_codes": [429],
        "num_retries": MAX_ATTEMPTS - 1,
        "per_try_timeout": f"{ATTEMPT_SECONDS}s",
    }
    routes, clusters = [], []
    for kind, scope in itertools.product(server.kinds, SCOPES):
        name = model_name(kind, scope)
        roots = server.roots(kind, scope, BACKENDS)
        prefix = "/" + roots[0].split("/", 3)[3]
        routes.append(
            {
                "match": {"prefix": prefix + "/"},
                "route": {"cluster": name, "timeout": "0s", "retry_policy": retry},
            }
        )
        ports = [int(root.split(":")[2].split("/")[0]) for root in roots]
        addresses = [{"address": serving.HOST, "port_value": one} for one in ports]
        endpoints = [{"endpoint": {"address": {"socket_address": one}}} for one in addresses]
        clusters.append(
            {
                "name": name,
                "type": "STATIC",
                "connect_timeout": f"{ATTEMPT_SECONDS}s",
                "circuit_breakers": {"thresholds": [{"max_retries": 1000}]},
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [{"lb_endpoints": endpoints}],
                },
            }
        )
    manager = {
        "@type": f"{kind_url}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "faults",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind_url}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "address": {"socket_address": {"address": serving.HOST, "port_value": port}},
        "filter_chains": [{"filters": [chain]}],
    }
    # Without it there is nothing to ask whether it is up.
    routes.append({"match": {"path": "/up"}, "direct_response": {"status": 200}})
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


@contextlib.asynccontextmanager
async def _serve_cell(
    peer: peers.Peer, server: FaultServer, kind: str, scope: str, running: int | None
) -> AsyncIterator[str]:
    """Yield the address that a cell is asked at; vllm-router gets a process of its own for it."""
    roots = server.roots(kind, scope, BACKENDS)
    if peer.name == "Envoy":
        yield f"http://{serving.HOST}:{running}/{roots[0].split('/', 3)[3]}"
    elif running is not None:
        yield f"http://{serving.HOST}:{running}"
    else:
        port = serving.free_port()
        command = [
            str(peers.find_tools(peer) / "vllm-router"), "--host", serving.HOST,
            "--port", str(port), "--worker-urls", *roots, "--policy", "round_robin",
            "--prometheus-port", str(serving.free_port()), "--log-level", "error",
            "--retry-max-retries", str(MAX_ATTEMPTS - 1), "--disable-circuit-breaker",
            "--request-timeout-secs", str(round(ATTEMPT_SECONDS)),
            "--worker-startup-timeout-secs", "30", "--worker-startup-check-interval", "1",
            "--health-success-threshold", "1", "--health-check-interval-secs", "1",
        ]  # fmt: skip
        core = machine.cores().gateway
        started = serving.running(command, serving.ROOT, core, port, "/health", _PATIENCE_SECONDS)
        # It asks the servers, which are this very process, before it is up.
        async with serving.beside_loop(started):
            yield f"http://{serving.HOST}:{port}"


@contextlib.contextmanager
def _serve_all(peer: peers.Peer, server: FaultServer) -> Any:
    """Run a peer that serves every cell at once; yield its port, None for one that cannot."""
    if peer.name == "vllm-router":
        yield None
        return
    port, tools = serving.free_port(), peers.find_tools(peer)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        if peer.name == "Envoy":
            file.write_text(json.dumps(configure_envoy(server, port)))
            command = [str(tools / "envoy"), "-c", str(file), "--concurrency", "1"]
            command += ["--log-level", "error", "--disable-hot-restart"]
            up = "/up"
        else:
            file.write_text(json.dumps(configure_litellm(server)))
            command = [str(tools / "litellm"), "--config", str(file), "--host", serving.HOST]
            command += ["--port", str(port), "--telemetry", "False"]
            up = peer.path
        core = machine.cores().gateway
        with serving.running(command, serving.ROOT, core, port, up, _PATIENCE_SECONDS):
            yield port


async def measure_peer(
    peer: peers.Peer, kinds: tuple[str, ...], requests: int, together: int, kept: KeptCells
) -> None:
    """Ask what became of each cell's requests, where that is not kept yet."""
    async with FaultServer(kinds) as server:
        with _serve_all(peer, server) as running:
            for kind, scope in itertools.product(kinds, SCOPES):
                if running is None and (kind == REFUSED or kind in BEFORE_READING):
                    continue  # it does not start before its servers have answered a probe
                names = {stream: name_cell(kind, scope, stream=stream) for stream in (False, True)}
                if all(name in kept.results for name in names.values()):
                    continue
                async with _serve_cell(peer, server, kind, scope, running) as url:
                    for stream, name in names.items():
                        async with connect("chat", url) as client:
                            result = await run_cell(
                                client, server, kind, scope, stream=stream,
                                requests=requests,
                                together=limit_together(kind, min(requests, together)),
                            )  # fmt: skip
                        kept.add(name, result)
                        print(f"{peer.name}: {name}: {_describe(result)}", flush=True)


def _describe(result: CellResult) -> str:
    return ", ".join(f"{count} {fate}" for fate, count in result.fates.items())


def main() -> int:
    """Measure the peers that are asked for and print the totals."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.peers", description=__doc__)
    parser.add_argument("--requests", type=int, default=10, help="requests a cell")
    parser.add_argument("--together", type=int, default=5, help="of them at once")
    parser.add_argument("--peer", help="one of them, by name")
    parser.add_argument(
        "--kept", type=Path, help="a file of cells: those in it are not asked again"
    )
    parser.add_argument("--only", help="a part of the kinds' names")
    asked = parser.parse_args()
    kinds = tuple(name for name in KINDS if not asked.only or asked.only in name)
    if "proper" not in kinds:
        kinds = (*kinds, "proper")
    for peer in peers.PEERS:
        if peer is peers.RELAY or (asked.peer and asked.peer != peer.name):
            continue
        kept = KeptCells(asked.kept, peer.name, asked.requests)
        asyncio.run(measure_peer(peer, kinds, asked.requests, asked.together, kept))
        total: Counter[Fate] = Counter()
        for result in kept.results.values():
            total.update(result.fates)
        print(f"{peer.name}: {len(kept.results)} cells of {asked.requests}", end="; ")
        print("; ".join(f"{fate}: {total[fate]}" for fate in Fate), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
