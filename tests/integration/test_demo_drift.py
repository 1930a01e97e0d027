"""A fresh demo under steady load tells of no drift; one whose GPUs slow down does.

Two minutes with eight requests at a time through real sockets: simulators, meter, gateway and its
drift tests as `joulegate demo` has them. The event loop's time is virtual, so that a busy machine
is no drift; the meter's thread, which would read in real time, is a task of the same loop.
"""

import asyncio
import contextlib
import itertools

import pytest

from gateway import profile as profiles
from gateway.commands.demo import fleet
from gateway.commands.demo.example_config import make_example_config
from tests.integration.harness import serve
from tests.integration.virtual_meter import metered_in_the_loop
from tests.integration.virtual_time import run_virtually

SPEED = 20.0
SECONDS = 120.0
AT_ONCE = 8
ALARMS = "joulegate_prediction_drift_alarms_total"
COMPARED = "joulegate_prediction_requests_total"
PROMPTS = [
    "Name three rivers of Europe.",
    "Explain in a few sentences why the sky is blue. " * 4,
    "Summarise this report. " + "The quarter went as was expected by all. " * 25,
    "Write a short story about a lighthouse and its keeper.",
]

pytestmark = pytest.mark.slow


async def serve_demo(tmp_path, *, slower):
    """Serve it; return the alarms and the comparisons by quantity. `slower` from the middle on."""
    models = fleet.make_demo_models(profiles.load_profile(None))
    now = asyncio.get_running_loop().time
    path = tmp_path / "profile.json"
    profiles.save_profile(fleet.speed_up_models(models, SPEED), path)
    with metered_in_the_loop() as know:
        async with contextlib.AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                fleet.run_simulators(models, SPEED, replicas=2)
            )
            know(running.values())
            urls = {name: simulator.url for name, simulator in running.items()}
            meter = await stack.enter_async_context(await fleet.start_meter(urls))
            config = make_example_config(
                urls, meter=meter.url, tools=fleet.TOOLS, profile=str(path), learns_lengths=False
            )
            gate = await stack.enter_async_context(serve(config))
            prompts = itertools.cycle(PROMPTS)
            until = now() + SECONDS

            async def ask_on():
                while now() < until:
                    said = [{"role": "user", "content": next(prompts)}]
                    got = await gate.ask({"model": "auto", "messages": said})
                    assert got.status == 200, got.raw

            async def slow_down():
                await asyncio.sleep(SECONDS / 2)
                for one in running.values():
                    one.set_cost_model(one.spec.truth.scale_costs(seconds=slower))

            await asyncio.gather(slow_down(), *(ask_on() for _ in range(AT_ONCE)))
            await asyncio.sleep(5.0)
            kinds = ("seconds", "joules", "output_tokens")
            return (
                {kind: await gate.metric(ALARMS, profile="live", quantity=kind) for kind in kinds},
                {
                    kind: await gate.metric(COMPARED, profile="live", quantity=kind)
                    for kind in kinds
                },
            )


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_only_gpus_that_changed_are_told_of(tmp_path, slower):
    alarms, compared = run_virtually(lambda: serve_demo(tmp_path, slower=slower))
    print(alarms, compared)
    assert min(compared.values()) > 500
    if slower == 1.0:
        assert not any(alarms.values())
    else:
        assert alarms["seconds"] > 0
