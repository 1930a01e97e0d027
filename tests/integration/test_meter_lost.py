"""A meter that is killed under load and comes back: no request notices, what it missed is said."""

import asyncio
import signal
from collections import Counter

from tests.integration.harness import CHAT, STREAM, metered, model, until
from tests.integration.process import joulegate

EVERY_SECONDS = 0.01


class Meter:
    """Where a `joulegate meter` listens."""

    def __init__(self, url):
        self.url = url
        self.port = int(url.rpartition(":")[2])


def meter_of(simulator, port=0):
    options = ("--source", "simulator", "--url", simulator.url, "--backend", simulator.url)
    return joulegate("meter", *options, "--port", port, "--hz", 100)


async def listening(process):
    return Meter((await process.says(r"metering on (http://127\.0\.0\.1:\d+)"))[1])


class Load:
    """A hundred requests a second, until told to stop."""

    def __init__(self, gate):
        self.answers = []
        self._gate = gate
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        async with asyncio.TaskGroup() as tasks:
            while self._task is not None:
                body = (CHAT, STREAM)[len(self.answers) % 2]
                self.answers.append(tasks.create_task(self._gate.ask(body)))
                await asyncio.sleep(EVERY_SECONDS)

    async def stop(self):
        task, self._task = self._task, None
        await task
        return [answer.result() for answer in self.answers]


async def count(gate, method):
    return await gate.metric("joulegate_request_energy_joules_count", method=method)


async def measured(gate):
    return await count(gate, "exclusive") + await count(gate, "apportioned")


async def rises(gate, how, what):
    """Wait until a count is higher than it is now."""
    before = await how(gate)

    async def risen():
        return await how(gate) > before

    await until(risen, what, seconds=30)


async def test_killed_under_load_and_back_again(world):
    simulator = await world.simulator()

    async def estimated(gate):
        return await count(gate, "estimated")

    async def up(gate):
        return await gate.metric("joulegate_meter_up")

    async with meter_of(simulator) as process:
        meter = await listening(process)
        gate = await world.gate(model("phi-3-mini", metered(simulator, meter)))
        await until(lambda: up(gate), "the meter to answer")
        load = Load(gate)
        await rises(gate, measured, "observations")
        process.send(signal.SIGKILL)
        await process.ended()
    await rises(gate, estimated, "estimates")
    assert await up(gate) == 0
    unmetered = await gate.metric("joulegate_unmetered_requests_total")
    assert unmetered > 0
    async with meter_of(simulator, meter.port) as process:
        await listening(process)
        await until(lambda: up(gate), "the meter to answer again")
        await rises(gate, measured, "observations again")
        answers = await load.stop()
        assert Counter(answer.status for answer in answers) == {200: len(answers)}
        assert not any(answer.error for answer in answers)
        await until(lambda: gate.idle)

        async def all_settled():
            page = "joulegate_request_energy_joules_count"
            return await gate.metric(page) == len(answers)

        await until(all_settled, "every request's joules", seconds=30)
    # Exactly what is estimated was missed: nothing is lost, nothing counted twice.
    missed = await gate.metric("joulegate_unmetered_requests_total")
    assert missed == await count(gate, "estimated") >= unmetered
    assert missed + await measured(gate) + await count(gate, "coarse") == len(answers)


async def test_a_restart_that_nobody_noticed_leaves_nothing_waiting(world):
    """Requests in flight are told anew; what the old one had not settled is estimated."""
    simulator = await world.simulator(speed=4.0)
    async with meter_of(simulator) as process:
        meter = await listening(process)
        gate = await world.gate(model("phi-3-mini", metered(simulator, meter)))
        await until(lambda: gate.metric("joulegate_meter_up"), "the meter to answer")
        body = STREAM | {"max_tokens": 300, "ignore_eos": True}
        asks = [asyncio.create_task(gate.ask(body)) for _ in range(3)]
        await until(lambda: simulator.engine.running_requests == 3, "the streams")
        process.send(signal.SIGKILL)
        await process.ended()
    async with meter_of(simulator, meter.port) as process:
        await listening(process)
        assert {got.status for got in await asyncio.gather(*asks)} == {200}

        async def settled():
            return await gate.metric("joulegate_request_energy_joules_count") == 3

        await until(settled, "their joules", seconds=30)
    assert await count(gate, "estimated") == 3
