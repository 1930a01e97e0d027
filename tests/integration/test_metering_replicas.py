"""Two gateways that share a backend and its meter: each request's joules are what they would be."""

import asyncio
from collections import defaultdict

import msgspec
import pytest

from backends.meter.daemon.ledger_runner import BackendSpec, LedgerSpec
from backends.meter.daemon.service import MeterService
from backends.meter.sources.simulated import SimulatorSource
from tests.integration.harness import STREAM, metered, model, steady, until

LENGTHS = [(8 * place, 100 + 12 * place) for place in range(1, 9)]
"""Words of the prompt and tokens of the answer."""
SPEED = 4.0
MEASURED = ("exclusive", "apportioned")


class Recorded:
    """All that a meter was told, in its order, and what it answered."""

    def __init__(self, meter):
        self.calls = []
        """(method, its arguments, counter events that it took), in their order."""
        self.observed = {}
        """(microjoules, method) by gateway and its number of the request."""
        (self.runner,) = meter.runners.values()
        self._taken = []
        self._take = self.runner.sampler.take_events
        self.runner.sampler.take_events = self.take
        for name in ("receive_batch", "record_token_counts", "expire_gateways"):
            setattr(meter, name, self.wrap(name, getattr(meter, name)))

    def take(self):
        events = self._take()
        self._taken += events
        return events

    def wrap(self, name, method):
        def call(*arguments):
            self._taken = []
            answer = method(*arguments)
            self.calls.append((name, arguments, self._taken))
            if name == "receive_batch":
                for one in answer.observations:
                    key = arguments[0].gateway, one.id
                    self.observed[key] = (one.microjoules, one.method)
            return answer

        return call


def tell_by_one_gateway(recorded, root):
    """Tell another meter the same as if by one gateway; returns what it answers."""
    source = SimulatorSource(root)
    meter = MeterService([LedgerSpec(recorded.runner.name, source, (BackendSpec(root),))])
    (runner,) = meter.runners.values()
    numbers, observed = defaultdict(lambda: len(numbers) + 1), {}
    for name, arguments, taken in recorded.calls:
        waiting = iter([taken])
        runner.sampler.take_events = lambda waiting=waiting: next(waiting, [])
        if name != "receive_batch":
            getattr(meter, name)(*arguments)
            continue
        batch, now_us, *_ = arguments
        events = [
            msgspec.structs.replace(one, id=numbers[batch.gateway, one.id]) for one in batch.events
        ]
        same = msgspec.structs.replace(batch, gateway="one", events=events, received=0)
        for one in meter.receive_batch(same, now_us).observations:
            observed[one.id] = (one.microjoules, one.method)
    return {whose: observed[number] for whose, number in numbers.items()}


async def ask(gate, place):
    """Make one of the requests; returns its joules and how they were had."""
    words, tokens = LENGTHS[place]
    body = STREAM | {
        "messages": [{"role": "user", "content": " word" * words}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    got = await gate.ask(body, {"x-request-id": f"r{place}"})
    assert (got.status, got.error) == (200, None)
    observed = (await gate.settled(f"r{place}"))["observed"]
    return observed["joules"], observed["method"]


async def test_each_requests_energy_is_what_it_would_be_with_one_gateway(world):
    """Told by one gateway what two told it, a meter answers the same, to the microjoule.

    So that nothing depends on how busy the machine was. How near that is to what each request
    truly cost: tests/unit/lab, in virtual time.
    """
    simulator = await world.simulator(speed=SPEED, truth_fields=steady())
    meter = await world.meter(simulator)
    recorded = Recorded(meter.meter)
    gates = [await world.gate(model("phi-3-mini", metered(simulator, meter))) for _ in range(2)]
    asks = []
    for place in range(len(LENGTHS)):
        asks.append(asyncio.create_task(ask(gates[place % 2], place)))
        await until(lambda place=place: simulator.engine.running_requests == place + 1, "it to run")
    found = await asyncio.gather(*asks)

    # Each gateway counts its own: what the meter said, where it could measure (a counter that a
    # busy machine made to stand still is not trusted).
    (ledger,) = meter.ledgers_by_name.values()
    said = [microjoules for microjoules, method in recorded.observed.values() if method in MEASURED]
    for method in (*MEASURED, "estimated"):
        counted = [
            await gate.metric("joulegate_energy_joules_total", method=method) for gate in gates
        ]
        told = [joules for joules, how in found if how == method]
        assert sum(counted) == pytest.approx(sum(told), rel=1e-9)
    measured = sum(joules for joules, method in found if method in MEASURED)
    assert measured == pytest.approx(sum(said) / 1e6, rel=1e-9)
    assert (
        ledger.advanced_microjoules
        == ledger.attributed_microjoules
        + ledger.idle_microjoules
        + ledger.other_microjoules
        + ledger.unsettled_microjoules
    )
    assert len({gateway for gateway, _ in recorded.observed}) == 2
    assert len(recorded.observed) == len(LENGTHS)
    assert tell_by_one_gateway(recorded, simulator.url) == recorded.observed


async def test_idle_energy_is_told_to_one_of_them_only(world):
    simulator = await world.simulator(speed=1.0)
    meter = await world.meter(simulator)
    gates = [await world.gate(model("phi-3-mini", metered(simulator, meter))) for _ in range(2)]
    (ledger,) = meter.ledgers_by_name.values()

    async def idle():
        name = "joulegate_energy_joules_total"
        return sum([await gate.metric(name, method="idle") for gate in gates])

    told = await until(idle, "idle joules")
    for _ in range(3):

        async def more(told=told):
            found = await idle()
            return found > told and found

        told = await until(more, "more of them")
        # Twice the ledger's would be told if both gateways were.
        assert told <= ledger.idle_microjoules / 1e6 * (1 + 1e-9)
    assert told > ledger.idle_microjoules / 1e6 / 2
