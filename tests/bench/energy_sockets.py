"""One run of each kind of traffic over real sockets, beside the same schedule on the virtual clock.

Simulated backends, a meter and a client are one process, a gateway of its own is another. All
kinds run side by side; a request's charge is read from the gateway's decision log, its truth from
the simulator's answer.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp
import msgspec

from backends.meter.daemon import server as meters
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.server import start_simulator
from backends.simulator.spec import SimulatorSpec
from backends.simulator.tokens import PER_CHAT, PER_MESSAGE
from gateway import profile as profiles
from gateway.scheduling.cost import RegressionForm
from tests.bench import levels, machine, serving
from tests.bench.report import say
from tests.lab import H100, LONG_CONTEXT, Lab, LabBackend, bursts, fitted_profile, poisson
from tests.lab.costs import ProfiledCost
from tests.lab.results import LabRequest, LabRun
from tests.lab.scenarios import LENGTHS, SLOTS, SMALL
from tests.lab.schedule import Arrival

_PERIOD_SECONDS = 0.1
_SETTLE_SECONDS = 30.0
_LEAST_TOKENS = 20
_FRAME_TOKENS = PER_CHAT + PER_MESSAGE


@dataclass(frozen=True, slots=True)
class Kind:
    """A schedule, and the backends of one ledger that serve it."""

    name: str
    backends: tuple[LabBackend, ...]
    arrivals: tuple[Arrival, ...]


class Asked(NamedTuple):
    """An answer's true joules and what became of its charge."""

    joules: float
    tokens_out: int


def kinds(seconds: float) -> list[Kind]:
    """A run of each, so long."""
    rng = Random(1)
    one = {"seed": 1, "seconds": seconds, **LENGTHS}
    two = [
        replace(it, backend=rng.choice(("two-large", "two-small")))
        for it in poisson(rate=2.0, **one)
    ]
    long = [
        replace(it, tokens_in=rng.randint(8_000, 30_000)) if rng.random() < 1 / 8 else it
        for it in poisson(rate=0.8, **one)
    ]
    return [
        make_kind("streamed", [LabBackend("streamed", H100)], poisson(rate=3.0, **one)),
        make_kind(
            "burst",
            [LabBackend("burst", SLOTS)],
            bursts(count=30, every_seconds=20.0, **one),
        ),
        make_kind(
            "two models",
            [
                LabBackend("two-large", replace(H100, idle_watts=1.0), cost=fitted_profile(H100)),
                LabBackend("two-small", replace(SMALL, idle_watts=1.0), cost=fitted_profile(SMALL)),
            ],
            two,  # each simulator idles by itself, a real GPU only when both do
        ),
        make_kind("long prompts", [LabBackend("long", LONG_CONTEXT)], long),
    ]


def make_kind(name: str, backends: list[LabBackend], arrivals: Sequence[Arrival]) -> Kind:
    made = tuple(
        replace(
            it, tokens_in=max(it.tokens_in, _LEAST_TOKENS), backend=it.backend or backends[0].name
        )
        for it in arrivals
    )
    cost = fitted_profile
    known = tuple(replace(b, cost=b.cost or cost(b.truth)) for b in backends)
    return Kind(name, known, made)


def compare(seconds: float) -> list[dict[str, Any]]:
    """Run all kinds both ways; a row each."""
    cores = machine.cores()
    os.sched_setaffinity(0, {cores.load})
    made = kinds(seconds)
    say(f"{seconds:g} s over sockets")
    over_sockets = asyncio.run(serve_kinds(cores.gateway, made))[0]
    rows = []
    for kind in made:
        virtual = Lab(list(kind.backends), seed=1).run(kind.arrivals)
        real = over_sockets[kind.name]
        rows.append(
            {
                "kind": kind.name,
                "requests": len(real.measured()),
                "virtual": [virtual.median_error(), virtual.p95_error(), virtual.sum_error()],
                "sockets": [real.median_error(), real.p95_error(), real.sum_error()],
                "methods": real.methods(),
            }
        )
    return rows


async def serve_kinds(core: int, made: Sequence[Kind]) -> tuple[dict[str, LabRun], dict[str, int]]:
    """Serve all side by side; return the runs by kind, and the microjoules by backend."""
    async with contextlib.AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        engines = {}
        for kind in made:
            for backend in kind.backends:
                spec = SimulatorSpec(
                    backend.name,
                    replace(backend.truth, context=40_000),
                    per_request_metrics=True,
                    prompt_tokens_details=True,
                )
                simulator = await stack.enter_async_context(await start_simulator(spec))
                urls[backend.name], engines[backend.name] = simulator.url, simulator.engine
        served = await stack.enter_async_context(_gateway(core, made, urls))
        await asyncio.sleep(3.0)  # the meter finds its counters' period
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        base = f"http://{serving.HOST}:{served.port}"
        async with aiohttp.ClientSession(base, timeout=timeout, connector=connector) as http:
            before = {name: engine.microjoules for name, engine in engines.items()}
            began = time.monotonic()
            asked = await asyncio.gather(
                *(
                    _ask(http, f"{kind.name}-{number}".replace(" ", "_"), arrival, began)
                    for kind in made
                    for number, arrival in enumerate(kind.arrivals)
                )
            )
        spent = {name: engine.microjoules - before[name] for name, engine in engines.items()}
        names = [f"{k.name}-{n}".replace(" ", "_") for k in made for n in range(len(k.arrivals))]
        truths = dict(zip(names, asked, strict=True))
        log = served.folder / "decisions.jsonl"
        lines = await levels.logged(log, len(names), seconds=_SETTLE_SECONDS)
    return {kind.name: _run(kind, truths, lines) for kind in made}, spent


def _run(kind: Kind, truths: dict[str, Asked], lines: dict[str, dict[str, Any]]) -> LabRun:
    requests = []
    for number, arrival in enumerate(kind.arrivals):
        name = f"{kind.name}-{number}".replace(" ", "_")
        observed = lines[name]["observed"]
        request = LabRequest(number, arrival, arrival.backend or "", truths[name].tokens_out)
        request.truth = _truth(name, arrival, truths[name])
        request.charged_microjoules = round(observed["joules"] * 1e6)
        request.method = observed["method"]
        requests.append(request)
    return LabRun(requests, {}, 0.0)


def _truth(name: str, arrival: Arrival, asked: Asked) -> Any:
    from backends.simulator.engine_request import RequestCost

    microjoules = round(asked.joules * 1e6)
    return RequestCost(
        name, arrival.tokens_in, asked.tokens_out, 0.0, asked.joules, microjoules, 0.0, 0.0, 0.0
    )


async def _ask(http: aiohttp.ClientSession, name: str, arrival: Arrival, began: float) -> Asked:
    await asyncio.sleep(max(0.0, began + arrival.at_seconds - time.monotonic()))
    body = {
        "model": arrival.backend,
        "messages": [{"role": "user", "content": " word" * (arrival.tokens_in - _FRAME_TOKENS)}],
        "max_tokens": arrival.tokens_out,
        "ignore_eos": True,
        "stream": arrival.stream,
    }
    if arrival.stream:
        body["stream_options"] = {"include_usage": True}
    last = b""
    async with http.post(
        "/v1/chat/completions", json=body, headers={"x-request-id": name}
    ) as response:
        if not arrival.stream:
            last = await response.read()
        else:
            async for line in response.content:
                if b'"simulated"' in line:
                    last = line
    told = json.loads(last.removeprefix(b"data: "))
    return Asked(told["simulated"]["energy_joules"], told["usage"]["completion_tokens"])


@contextlib.asynccontextmanager
async def _gateway(core: int, made: Sequence[Kind], urls: dict[str, str]) -> AsyncIterator[Any]:
    ledgers = [
        LedgerSpec(
            kind.name.replace(" ", "-"),
            SimulatorSource(*(urls[b.name] for b in kind.backends), period_seconds=_PERIOD_SECONDS),
            tuple(BackendSpec(urls[b.name]) for b in kind.backends),
        )
        for kind in made
    ]
    async with await meters.start_meter(ledgers) as meter:
        profile = Path(await asyncio.to_thread(_profile, made))
        lines = [f"profile: {profile}", "log: {decisions: decisions.jsonl}", "models:"]
        for kind in made:
            ledger = kind.name.replace(" ", "-")
            for b in kind.backends:
                lines += [
                    f"  - name: {b.name}",
                    "    context: 40000",
                    f"    backends: [{{url: '{urls[b.name]}', meter: '{meter.url}/{ledger}'}}]",
                ]
        gateway = serving.configured(core, "\n".join(lines) + "\n")
        try:
            async with serving.beside_loop(gateway) as ready:
                yield ready
        finally:
            await asyncio.to_thread(profile.unlink)


def _profile(made: Sequence[Kind]) -> str:
    """A profile of all models in the `load` form, as found by profiling each alone."""
    import tempfile

    shipped = next(iter(profiles.load_profile(None).models.values()))
    models = {}
    for kind in made:
        for backend in kind.backends:
            cost = backend.cost or ProfiledCost(0.0)
            models[backend.name] = msgspec.structs.replace(
                shipped,
                seconds=_seconds(backend),
                joules=profiles.CostRegression(
                    form=RegressionForm.LOAD,
                    coefficients=[
                        0.0, cost.prompt_joules, cost.own_joules, cost.context_joules,
                        cost.shared_joules,
                    ],
                ),
            )  # fmt: skip
    with tempfile.NamedTemporaryFile(suffix=".json", delete=False) as file:
        profiles.save_profile(models, Path(file.name))
    return file.name


def _seconds(backend: LabBackend) -> profiles.CostRegression:
    truth = backend.truth
    first = truth.total_seconds(100, 1)
    per_token = (truth.total_seconds(100, 101) - first) / 100
    return profiles.CostRegression(
        form=RegressionForm.ADDITIVE,
        coefficients=[0.0, (truth.total_seconds(1100, 1) - first) / 1000, per_token],
    )
