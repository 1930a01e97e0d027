"""A whole switchback through real sockets, held to the same arrivals on the lab's virtual clock.

Two models that are as fast and cost a GPU of its own each; blocks of the baseline go to the dear
one, and energy chooses the other. Simulators, meter, gateway, its counters as Prometheus would
scrape them, and what `joulegate savings` makes of them. All time, the day's too, is virtual.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backends.simulator.tokens import PER_CHAT, PER_MESSAGE
from calibration.recalibrate.prometheus import Series
from gateway.config import WeightsConfig
from gateway.experiment_config import BaselineConfig, ExperimentConfig
from gateway.profile import CostRegression, save_profile
from gateway.scheduling.cost import RegressionForm
from gateway.telemetry.experiment import ExperimentMetrics
from tests.integration.harness import World, metered, model
from tests.integration.virtual_meter import metered_in_the_loop
from tests.integration.virtual_time import run_virtually
from tests.lab.costs import fitted_profile
from tests.lab.refits import make_profile
from tests.lab.switchback import (
    BLOCK_SECONDS,
    SCRAPE_SECONDS,
    START,
    WASHOUT_SECONDS,
    analyse_series,
    draw_traffic,
    make_backends,
    run_arrivals,
)

BLOCKS, SEED, FACTOR = 12, 1, 0.7
SECONDS = BLOCKS * BLOCK_SECONDS
EXPERIMENT = ExperimentConfig(
    "lab", BaselineConfig(model="a"), BLOCK_SECONDS / 60.0, WASHOUT_SECONDS, SEED
)
FRAME = PER_CHAT + PER_MESSAGE
ARRIVALS = [
    replace(one, stream=False, tokens_in=max(one.tokens_in, FRAME + 1))
    for one in draw_traffic(SEED, BLOCKS)
]


def make_models():
    """What profiling each alone found."""
    made = {}
    for backend in make_backends(FACTOR):
        cost, step = fitted_profile(backend.truth), backend.truth.seconds
        parts = [cost.prompt_joules, cost.own_joules, cost.context_joules, cost.shared_joules]
        seconds = [step.per_prompt_token, step.fixed, step.per_context_token, step.per_sequence]
        made[backend.name] = make_profile(
            *(
                CostRegression(RegressionForm.LOAD_CONTEXT, [0.0, *values])
                for values in (seconds, parts)
            )
        )
    return made


async def serve_arrivals(tmp_path):
    """Ask as scheduled; return what a scrape every 20 s shows of the experiment."""
    path = tmp_path / "profile.json"
    save_profile(make_models(), path)
    loop = asyncio.get_running_loop()
    shown = {}
    with contextlib.ExitStack() as patches:
        know = patches.enter_context(metered_in_the_loop())
        async with contextlib.AsyncExitStack() as stack:
            world = World(stack)
            servers = [
                await world.simulator(
                    one.name, speed=1.0, truth=one.truth, per_request_metrics=True
                )
                for one in make_backends(FACTOR)
            ]
            know(servers)
            meter = await world.meter(*servers, hz=20.0)
            began = loop.time() + 5.0

            def tell():
                return START + loop.time() - began

            patches.enter_context(mock.patch("time.time", tell))
            patches.enter_context(
                mock.patch.object(ExperimentMetrics.__init__, "__defaults__", (tell,))
            )
            models = [model(one.spec.model, metered(one, meter), context=32_768) for one in servers]
            gate = await world.gate(
                *models, profile=str(path), experiment=EXPERIMENT, weights=WeightsConfig(energy=1)
            )
            assert time.time() < START

            async def ask(arrival):
                await asyncio.sleep(began + arrival.at_seconds - loop.time())
                said = " word" * (arrival.tokens_in - FRAME)
                got = await gate.ask(
                    {
                        "model": "auto",
                        "messages": [{"role": "user", "content": said}],
                        "max_tokens": arrival.tokens_out,
                        "ignore_eos": True,
                    }
                )
                assert got.status == 200, got.raw
                assert got.json["usage"]["completion_tokens"] == arrival.tokens_out

            async def scrape():
                for number in range(int(SECONDS // SCRAPE_SECONDS) + 3):
                    await asyncio.sleep(began + number * SCRAPE_SECONDS - loop.time())
                    page = (await gate.get("/metrics")).raw.decode()
                    for family in text_string_to_metric_families(page):
                        for one in family.samples:
                            if one.name.startswith("joulegate_experiment_"):
                                key = (one.name, *sorted(one.labels.items()))
                                shown.setdefault(key, []).append((tell(), repr(one.value)))

            await asyncio.gather(scrape(), *map(ask, ARRIVALS))
    return [Series({"__name__": name, **dict(labels)}, of) for (name, *labels), of in shown.items()]


@pytest.mark.slow
def test_sockets_and_virtual_time_tell_the_same_of_a_switchback(tmp_path):
    series = run_virtually(lambda: serve_arrivals(tmp_path))
    served = analyse_series(series, EXPERIMENT.make_switchback(), BLOCKS)
    virtual = run_arrivals(ARRIVALS, SEED, FACTOR, BLOCKS)
    for name in ("joules_per_1000_tokens", "joules_per_answer", "request_joules_per_answer"):
        one, other = served[name], virtual[name]
        print(name, one, other)
        assert one.baseline == pytest.approx(other.baseline, rel=0.03)
        assert one.treatment == pytest.approx(other.treatment, rel=0.03)
        assert one.low == pytest.approx(other.low, abs=0.04)
        assert one.high == pytest.approx(other.high, abs=0.04)
    assert served["tokens_per_answer"].baseline == pytest.approx(
        virtual["tokens_per_answer"].baseline, rel=0.01
    )
