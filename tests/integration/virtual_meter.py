"""A meter's counters of simulated backends on the event loop's own time: no thread, no socket."""

import asyncio
import contextlib
from unittest import mock

from backends.meter.daemon import sampler
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.scheduler_loop import SchedulerLoop


@contextlib.contextmanager
def metered_in_the_loop():
    """Until the end every meter's thread is a task, which reads the simulated counters at once.

    Yields a function that is told the simulators, once they run.
    """
    loops, tasks, counters = {}, [], {}
    started = SchedulerLoop.start_task

    def start_task(self):
        loops[id(self.engine)] = self
        started(self)

    async def read_counters(of):
        of.open_source()
        while True:
            await asyncio.sleep(of.next_pause_seconds())
            of.read_counters()

    def start_thread(self):
        tasks.append(asyncio.create_task(read_counters(self)))

    def fetch(source, netloc):
        assert source.kind == "simulator"
        return counters[netloc].microjoules

    def know(simulators):
        counters.update(
            (one.url.removeprefix("http://"), loops[id(one.engine)]) for one in simulators
        )

    with (
        mock.patch.object(SchedulerLoop, "start_task", start_task),
        mock.patch.object(sampler.CounterSampler, "start_thread", start_thread),
        mock.patch.object(SimulatorSource, "_fetch_microjoules", fetch),
    ):
        yield know
    for task in tasks:
        task.cancel()
