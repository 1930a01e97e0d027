"""A gateway and its backends in the test's own event loop, over real sockets."""

import contextlib
import io
import json
import random
import re
import socket
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import openai
import uvicorn

from backends.meter.daemon import server as meters
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.cost_model import CostModel
from backends.simulator.server import RunningSimulator, start_simulator
from backends.simulator.spec import SimulatorSpec
from gateway import profile as profiles
from gateway.app import bypass_router_for_inference, create_app
from gateway.commands.serving import make_server_config
from gateway.config import BackendConfig, GatewayConfig, HealthConfig, ModelConfig
from gateway.deciding_config import LearningConfig
from tests.integration.scripted import Raw, Recorder
from tests.waiting import until

HELLO = [{"role": "user", "content": "Hello there"}]
CHAT = {"model": "auto", "messages": HELLO}
STREAM = CHAT | {"stream": True}
ENDLESS = {"max_tokens": 600, "ignore_eos": True}
"""Makes an answer last until somebody ends it: half a minute at speed 1."""
ENERGY = {"x-joulegate-weight-energy": "1"}
ACCURACY = {"x-joulegate-weight-accuracy": "1"}
CONTEXT = {"phi-3-mini": 4096, "mistral-7b": 8192, "falcon-7b": 2048}
UNTAUGHT = LearningConfig(enabled=False)
CALM = HealthConfig(
    idle_probe_seconds=3600, probe_seconds=3600, load_seconds=3600, eject_after_failures=10_000
)
"""No probe but the first and no ejection, for tests that are about something else."""
DONE = b"[DONE]"


def truth(name="phi-3-mini", **fields):
    """What a model of the shipped profile really costs, without noise."""
    fitted = msgspec.to_builtins(profiles.load_profile(None).get_model(name))
    return CostModel.from_profile(fitted, **{"context": CONTEXT[name], "output_sd": 0.0} | fields)


def steady(name="phi-3-mini"):
    """What makes a truth draw 200 W whenever it works alone, and next to nothing else."""
    return {"seconds": truth(name).joules.scale_by(1 / 200), "idle_watts": 1e-3}


def model(name, *backends, **fields):
    """One deployment; a backend is anything with a `url`, or a BackendConfig."""
    found = tuple(b if isinstance(b, BackendConfig) else BackendConfig(b.url) for b in backends)
    fields = {"context": CONTEXT.get(name, 4096)} | fields
    return ModelConfig(name=name, backends=found, **fields)


def metered(backend, meter):
    """A backend with a meter, both anything with a `url`."""
    return BackendConfig(backend.url, meter=meter.url)


def spent(server):
    """The joules that a simulator's requests have cost so far."""
    return server.engine.microjoules - server.engine.idle_microjoules


@dataclass
class Got:
    """A whole answer."""

    status: int
    headers: Any
    raw: bytes
    error: Exception | None = None
    """What the connection broke with, if it did."""

    @property
    def json(self):
        return json.loads(self.raw)

    @property
    def events(self):
        """What stands behind `data:`, one by one."""
        return [part.removeprefix(b"data: ") for part in self.raw.split(b"\n\n") if part]

    @property
    def chunks(self):
        return [json.loads(event) for event in self.events if event != DONE]

    @property
    def text(self):
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)


@dataclass
class Gate:
    """A gateway that serves."""

    url: str
    runtime: Any
    server: uvicorn.Server
    http: aiohttp.ClientSession

    @property
    def gateway(self):
        return self.runtime.gateway

    def backend(self, url):
        """What the gateway knows of one backend."""
        return next(b for b in self.gateway.backends if b.root == getattr(url, "url", url))

    async def ask(self, body=CHAT, headers=None, path="/v1/chat/completions", method="POST"):
        """Send a body (JSON or bytes) and read the answer to its end, however that comes."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None and len(data) >= 1 << 20:
            data = io.BytesIO(data)  # aiohttp warns of bytes of that size
        got = Got(0, {}, b"")
        try:
            async with self.http.request(method, path, data=data, headers=headers) as response:
                got.status, got.headers = response.status, response.headers
                async for piece in response.content.iter_any():
                    got.raw += piece
        except aiohttp.ClientPayloadError as error:
            got.error = error
        return got

    async def get(self, path, headers=None):
        return await self.ask(None, headers, path, "GET")

    async def metric(self, name, **labels):
        """The sum of a metric's series that have these labels."""
        return total((await self.get("/metrics")).raw.decode(), name, **labels)

    async def record(self, got):
        """What the gateway remembers of an answered request."""
        return (await self.get(f"/v1/requests/{got.headers['x-request-id']}")).json

    async def settled(self, request_id, seconds=15.0):
        """What the gateway remembers of a request, once its joules are final."""

        async def final():
            got = await self.get(f"/v1/requests/{request_id}")
            return got.status == 200 and got.json["observed"]["joules"] is not None and got.json

        return await until(final, f"the joules of {request_id}", seconds)

    def sdk(self, **options):
        options = {"api_key": "unused", "max_retries": 0, "timeout": 30} | options
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", **options)

    @property
    def idle(self):
        """Whether nothing is in flight, in and out."""
        counts = [backend.inflight for backend in self.gateway.backends]
        return self.gateway.inflight_requests == 0 and not any(counts)


def total(page, name, **labels):
    """The sum of a metric's series on a page of Prometheus's text format."""
    found = 0.0
    for line in page.splitlines():
        match = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
        if match and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[1] or "")).items():
            found += float(match[2])
    return found


@contextlib.asynccontextmanager
async def serve(config, path=None):
    """Serve a config as `joulegate serve` does, but without uvicorn's signals and ticking.

    `path` is the file that it was read from, for a gateway that reads it again.
    """
    app = create_app(config, path=path, rng=random.Random(1))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    options = make_server_config(
        bypass_router_for_inference(app), timeout_keep_alive=75, timeout_graceful_shutdown=1
    )
    options.load()
    server = uvicorn.Server(options)
    server.lifespan = options.lifespan_class(options)
    await server.startup(sockets=[listener])
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with aiohttp.ClientSession(
            url,
            timeout=aiohttp.ClientTimeout(total=60),
            connector=aiohttp.TCPConnector(limit=0),
        ) as http:
            gate = Gate(url, app.state.runtime, server, http)
            backends = gate.gateway.backends
            await until(
                lambda: all(b.proven_healthy or b.is_ejected for b in backends), "the first probes"
            )
            yield gate
    finally:
        await server.shutdown(sockets=[listener])


@dataclass
class World:
    """Makes gateways and backends, and ends them all with the test."""

    stack: contextlib.AsyncExitStack
    simulators: list[RunningSimulator] = field(default_factory=list)

    async def simulator(self, name="phi-3-mini", *, speed=200.0, truth_fields=None, **fields):
        """A simulated backend; `truth_fields` change what it really costs."""
        made = SimulatorSpec(
            fields.pop("served", name),
            fields.pop("truth", None) or truth(name, **truth_fields or {}),
            speed=speed,
            **fields,
        )
        running = await self.stack.enter_async_context(await start_simulator(made))
        self.simulators.append(running)
        return running

    async def meter(self, *simulators, period_seconds=None, **options):
        """A meter with a ledger for each simulator; it reads often, for they are fast."""
        ledgers = [
            LedgerSpec(
                f"gpu{place}",
                SimulatorSource(simulator.url, period_seconds=period_seconds),
                (BackendSpec(simulator.url),),
            )
            for place, simulator in enumerate(simulators)
        ]
        running = await meters.start_meter(ledgers, **{"hz": 200.0} | options)
        return await self.stack.enter_async_context(running)

    async def recorder(self, answer=None):
        """A backend that keeps what it is sent."""
        return await self.stack.enter_async_context(Recorder(answer))

    async def raw(self, talk):
        """A backend that is a coroutine over reader and writer."""
        return await self.stack.enter_async_context(Raw(talk))

    async def gate(self, *models, **fields):
        """A gateway over these models; no probes, no ejections, nothing learnt unless told to.

        What is learnt of one test's lengths would choose the model of the next.
        """
        config = GatewayConfig(models=models, **{"health": CALM, "learning": UNTAUGHT} | fields)
        return await self.stack.enter_async_context(serve(config))

    @property
    def empty(self):
        """Whether no simulated engine has anything left to do."""
        return all(
            s.engine.running_requests == s.engine.waiting_requests == 0 for s in self.simulators
        )
