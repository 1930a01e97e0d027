"""`joulegate demo`: simulated backends, a meter and the gateway, asked through an SDK."""

import asyncio
import contextlib
import logging
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvicorn
from litestar import Litestar
from rich.table import Table

from backends.install_hint import suggest_install
from backends.meter.daemon import server as meters
from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.answers import SimulatorSpec
from backends.simulator.cost_model import CostModel
from backends.simulator.server import RunningSimulator, start_simulator
from backends.vllm.recipes import RECIPES
from gateway import profile as profiles
from gateway.app import bypass_router_for_inference, create_app
from gateway.commands.demo.example_config import make_example_config
from gateway.commands.serve import make_server_config, open_listener
from gateway.console import FAILED, OK, err, out, report_failure
from gateway.service.client import headers as names

_HOST = "127.0.0.1"
_TOOLS = ("phi-3-mini", "mistral-7b")
_NOISE = 0.03
_METER_HZ = 200.0
"""Ten times as often as usual, because simulated time runs that much faster."""
_SETTLE_SECONDS = 15.0
PROMPTS = (
    "Explain reinforcement learning in two sentences.",
    "Write a haiku about a cold data centre.",
    "What is the capital of Australia, and why is it not Sydney?",
    "Translate 'the early bird catches the worm' into French and German.",
    "Give me three names for a cat that sleeps all day.",
    "Summarise the plot of Hamlet for a ten-year-old.",
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey?",
    "List the steps to replace a bicycle's inner tube.",
)
WEIGHTS = {
    "accuracy first": {"accuracy": "1"},
    "energy first": {"energy": "1"},
    "time first": {"time": "1"},
    "balanced": {"accuracy": "1", "energy": "1", "time": "1"},
}


class DemoRow(NamedTuple):
    """One request of the demo; joules as predicted, as metered and as they truly were."""

    id: str
    weights: str
    prompt: str
    model: str
    score: float
    predicted_seconds: float
    observed_seconds: float
    predicted_joules: float
    metered_joules: float | None
    method: str | None
    true_joules: float


def run(*, port: int, once: bool, speed: float, loop: bool) -> int:
    """Run the demo; the exit code."""
    try:
        import openai  # noqa: F401, PLC0415 - an extra, asked for only here
    except ImportError:
        # As it stands: rich would take the brackets for a style of its own.
        return report_failure(f"the demo asks through the OpenAI SDK: {suggest_install('demo')}")
    try:
        # Before anything else is started.
        listener = open_listener(_HOST, port)
    except OSError as error:
        err.print(f"joulegate: {_HOST}:{port}: {error.strerror}; choose another with --port")
        return FAILED
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_run_demo(listener, once=once, speed=speed, loop=loop))
    return OK


async def _run_demo(listener: socket.socket, *, once: bool, speed: float, loop: bool) -> int:
    base = f"http://{_HOST}:{listener.getsockname()[1]}"
    out.print(f"[bold]Joulegate demo[/]: simulated models, {speed:g} x faster than real ones")
    # uvicorn answers Ctrl-C by stopping, then tells us by this exception.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="joulegate-demo-") as folder:
        async with run_simulators(speed) as running:
            profile = Path(folder) / "profile.json"
            profiles.save_profile(speed_up_profile(profiles.load_profile(None), speed), profile)
            urls = {name: simulator.url for name, simulator in running.items()}
            for name, url in urls.items():
                out.print(f"  {name} at {url}")
            async with contextlib.AsyncExitStack() as stack:
                meter = await stack.enter_async_context(await start_meter(urls))
                out.print(f"  meter at {meter.url}, reading the simulated GPUs' counters")
                config = make_example_config(
                    urls,
                    meter=meter.url,
                    tools=_TOOLS,
                    profile=str(profile),
                    learns_lengths=False,  # so that the table is the same every time
                )
                server = await stack.enter_async_context(
                    serve_gateway(create_app(config), listener)
                )
                if loop:
                    from gateway.commands.demo import recalibration as circle  # noqa: PLC0415 - rarely asked for

                    out.print(f"  gateway at {base}")
                    return await circle.run(base, profile, running[circle.WATCHED])
                out.print(f"  gateway at {base}, {len(PROMPTS) * len(WEIGHTS)} requests to come")
                rows = await send_all_requests(base)
                out.print(make_table(rows))
                out.print(summarise_metering(rows), markup=False)
                out.print(make_hints(base), markup=False)
                if not once:
                    out.print("serving until Ctrl-C")
                    await server
    return OK


@contextlib.asynccontextmanager
async def run_simulators(
    speed: float, *, noise: float = _NOISE
) -> AsyncIterator[dict[str, RunningSimulator]]:
    """Run a simulated backend for each of the three models."""
    shipped = profiles.load_profile(None)
    async with contextlib.AsyncExitStack() as stack:
        running = {}
        for seed, recipe in enumerate(RECIPES.values()):
            fitted = msgspec.to_builtins(shipped.get_model(recipe.name))
            truth = CostModel.from_profile(fitted, context=recipe.context_tokens, noise=noise)
            spec = SimulatorSpec(
                recipe.name, truth, speed=speed, seed=seed, tools=recipe.name in _TOOLS
            )
            running[recipe.name] = await stack.enter_async_context(await start_simulator(spec))
        yield running


async def start_meter(urls: Mapping[str, str]) -> meters.RunningMeter:
    """Start a meter with a ledger for each simulated backend."""
    return await meters.start_meter(
        [LedgerSpec(name, SimulatorSource(url), (BackendSpec(url),)) for name, url in urls.items()],
        hz=_METER_HZ,
    )


def speed_up_profile(
    profile: profiles.CostProfile, speed: float
) -> dict[str, profiles.ModelProfile]:
    """Return the profile of the same hardware running `speed` times as fast; joules stay."""
    models = {}
    for name, model in profile.models.items():
        seconds = msgspec.structs.replace(
            model.seconds,
            coefficients=[value / speed for value in model.seconds.coefficients],
            covariance=None,
            rmse=None,
        )
        provenance = {**model.provenance, "simulated": f"seconds divided by {speed:g} for the demo"}
        models[name] = msgspec.structs.replace(model, seconds=seconds, provenance=provenance)
    return models


@contextlib.asynccontextmanager
async def serve_gateway(
    app: Litestar, listener: socket.socket
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the gateway in this event loop; yields the task that ends when it is told to stop."""
    options = make_server_config(bypass_router_for_inference(app), timeout_graceful_shutdown=1)
    server = uvicorn.Server(options)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    try:
        yield task
    finally:
        server.should_exit = True
        await task


async def send_all_requests(base: str) -> list[DemoRow]:
    """Send every prompt under every weighting, one after the other."""
    import openai  # noqa: PLC0415 - an extra

    rows = []
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="unused") as client:
        with err.status("asking") as status:
            for label, weights in WEIGHTS.items():
                headers = {f"x-joulegate-weight-{name}": value for name, value in weights.items()}
                for prompt in PROMPTS:
                    status.update(f"asking {label}: {prompt}")
                    rows.append(await _send_request(client, label, prompt, headers))
            status.update("waiting for the meter to settle the last of them")
            deadline = time.monotonic() + _SETTLE_SECONDS
            return [await _wait_for_joules(client, row, deadline) for row in rows]


async def _send_request(client: Any, label: str, prompt: str, headers: dict[str, str]) -> DemoRow:
    raw = await client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": prompt}],
        extra_headers=headers,
    )
    completion = raw.parse()
    request_id = raw.headers[names.REQUEST_ID]
    record = await client.get(f"/requests/{request_id}", cast_to=object)
    return DemoRow(
        id=request_id,
        weights=label,
        prompt=prompt,
        model=completion.model,
        score=float(raw.headers[names.SCORE]),
        predicted_seconds=float(raw.headers[names.PREDICTED_SECONDS]),
        observed_seconds=record["observed"]["seconds"],
        predicted_joules=float(raw.headers[names.PREDICTED_JOULES]),
        metered_joules=None,
        method=None,
        true_joules=completion.model_extra["simulated"]["energy_joules"],
    )


async def _wait_for_joules(client: Any, row: DemoRow, deadline: float) -> DemoRow:
    """Return the row with its joules, once they are settled."""
    while True:
        record = await client.get(f"/requests/{row.id}", cast_to=object)
        observed = record["observed"]
        if observed["joules"] is not None or time.monotonic() > deadline:
            return row._replace(metered_joules=observed["joules"], method=observed["method"])
        await asyncio.sleep(0.1)


def make_table(rows: list[DemoRow]) -> Table:
    """Lay the rows out; beside what the meter says stands the simulator's own truth."""
    shown = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in ("\nweights", "\nprompt", "\nmodel"):
        shown.add_column(name, no_wrap=True)
    for name in ("\nscore", "seconds\npred.", "\nobs.", "joules\npred.", "\nmetered", "\ntrue"):
        shown.add_column(name, justify="right", no_wrap=True)
    for index, row in enumerate(rows):
        first = index == 0 or rows[index - 1].weights != row.weights
        last = index + 1 == len(rows) or rows[index + 1].weights != row.weights
        shown.add_row(
            row.weights if first else "",
            row.prompt[:22],
            f"[bold]{row.model}[/]",
            f"{row.score:.3f}",
            f"{row.predicted_seconds:.3f}",
            f"{row.observed_seconds:.3f}",
            f"{row.predicted_joules:.0f}",
            "-" if row.metered_joules is None else f"{row.metered_joules:.0f}",
            f"{row.true_joules:.0f}",
            end_section=last,
        )
    return shown


def summarise_metering(rows: list[DemoRow]) -> str:
    """Say how well the meter did."""
    off = [
        abs(row.metered_joules / row.true_joules - 1)
        for row in rows
        if row.metered_joules is not None
    ]
    ways = ", ".join(sorted({row.method for row in rows if row.method}))
    median = f"{100 * statistics.median(off):.1f}%" if off else "-"
    return (
        f"Metered {len(off)} of {len(rows)} requests ({ways}); off the truth by {median} (median)."
    )


def make_hints(base: str) -> str:
    """Return what to try next."""
    return f"""
Predictions expect an answer of average length, so single answers scatter around them.
Try, while it is serving:

  curl {base}/v1/chat/completions -H 'content-type: application/json' \\
    -H 'x-joulegate-weight-energy: 1' -H 'x-joulegate-explain: true' \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{base}/v1", api_key="unused")
  client.chat.completions.create(model="auto:accuracy",
      messages=[{{"role": "user", "content": "Hello"}}])

  curl {base}/v1/models; curl {base}/metrics
"""
