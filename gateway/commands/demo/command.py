"""`joulegate demo`: simulated backends, a meter and the gateway, asked through an SDK."""

import asyncio
import contextlib
import logging
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from litestar import Litestar
from rich.table import Table

from backends.install_hint import suggest_install
from gateway import profile as profiles
from gateway.app import bypass_router_for_inference, create_app
from gateway.commands.demo import fleet
from gateway.commands.demo.example_config import make_example_config
from gateway.commands.demo.options import DemoOptions
from gateway.commands.demo.packing import show_packing
from gateway.commands.serve import open_listener
from gateway.commands.serving import make_server_config
from gateway.console import OK, err, out, report_failure
from gateway.service.client import headers as names

_HOST = "127.0.0.1"
_SETTLE_SECONDS = 15.0
ANSWER_TOKENS = 45
"""Of every answer in the table: what the shipped profile expects."""
LOOP_ANSWER_TOKENS = 70.0
"""Mean of the answers in the loop, for the gateway to learn."""
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


def run(options: DemoOptions) -> int:
    """Run the demo; return the exit code."""
    port = options.port
    try:
        import openai  # noqa: F401, PLC0415 - an extra, asked for only here
    except ImportError:
        # As it stands: rich would take the brackets for a style of its own.
        return report_failure(f"the demo asks through the OpenAI SDK: {suggest_install('demo')}")
    try:
        # Before anything else is started.
        listener = open_listener(_HOST, port)
    except OSError as error:
        return report_failure(f"{_HOST}:{port}: {error.strerror}; choose another with --port")
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_run_demo(listener, options))
    return OK


async def _run_demo(listener: socket.socket, options: DemoOptions) -> int:
    once, loop, speed = options.once, options.loop, options.simulated_speed
    base = f"http://{_HOST}:{listener.getsockname()[1]}"
    out.print(f"[bold]Joulegate demo[/]: simulated models, {speed:g} x faster than real ones")
    # uvicorn answers Ctrl-C by stopping, then tells us by this exception.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    shipped = profiles.load_profile(None)
    # The loop begins with what was profiled one request at a time, and finds out about company.
    models = shipped.models if loop else fleet.make_demo_models(shipped)
    if not loop:
        models = {**models, fleet.EMBEDDER: fleet.make_embedder()}
    replicas, answers = (1, LOOP_ANSWER_TOKENS) if loop else (2, None)
    with tempfile.TemporaryDirectory(prefix="joulegate-demo-") as folder:
        async with fleet.run_simulators(
            models, speed, replicas=replicas, answer_tokens=answers
        ) as running:
            profile = Path(folder) / "profile.json"
            profiles.save_profile(fleet.speed_up_models(models, speed), profile)
            urls = {name: simulator.url for name, simulator in running.items()}
            for name, url in urls.items():
                out.print(f"  {name} at {url}")
            async with contextlib.AsyncExitStack() as stack:
                meter = await stack.enter_async_context(await fleet.start_meter(urls))
                out.print(f"  meter at {meter.url}, reading the simulated GPUs' counters")
                config = make_example_config(
                    urls,
                    meter=meter.url,
                    tools=fleet.TOOLS,
                    embedder=None if loop else (fleet.EMBEDDER, fleet.EMBEDDER_CONTEXT),
                    profile=str(profile),
                    learns_lengths=loop,  # so that the table is the same every time
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
                for line in await show_packing(base):
                    out.print(line, markup=False)
                out.print(make_hints(base), markup=False)
                if not once:
                    out.print("serving until Ctrl-C")
                    await server
    return OK


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
        # Pinned, so that what is seen can be held to what was predicted.
        max_tokens=ANSWER_TOKENS,
        extra_body={"min_tokens": ANSWER_TOKENS},
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
Answers above are pinned to {ANSWER_TOKENS} tokens; others scatter, predictions expect their mean.
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
