"""A network between a gateway and its meter that comes and goes: both real, no sockets."""

import random
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backends.errors import ConnectionLost
from backends.meter.client import meter_client as links
from backends.meter.client import request_handle as requests
from backends.meter.client.meter_client import MeterLink
from backends.meter.protocol import EventBatch
from tests.unit.backends.meter.meters import World

NETWORK = ("well", "request lost", "answer lost")


class Reply:
    """An answer as Client.post returns it."""

    status = 200

    def __init__(self, body):
        self._body = body

    async def read_body(self, _limit):
        return self._body

    def close(self):
        pass


class Pair:
    """A link, its meter, the network between them, and one clock for both."""

    def __init__(self, monkeypatch):
        self.world = World()
        self.network = "well"
        self._began = time.monotonic()

        class Time:
            @staticmethod
            def monotonic():
                return self._began + self.world.now_us / 1e6

        monkeypatch.setattr(links, "time", Time)
        monkeypatch.setattr(requests, "time", Time)
        self.link = MeterLink("http://meter:9464", self)
        self.place = self.link.add_backend("a", "")

    @property
    def ledger(self):
        return self.world.meter.runners["l"].ledger

    async def post(self, _url, body, _headers):
        if self.network == "request lost":
            raise ConnectionLost("no route")
        batch = msgspec.json.decode(body, type=EventBatch)
        answer = self.world.meter.receive_batch(batch, self.world.now_us)
        if self.network == "answer lost":
            raise ConnectionLost("timed out")
        return Reply(msgspec.json.encode(answer))

    async def turn(self, seconds=1.0):
        """Let time pass as the two of them see it."""
        self.world.pass_seconds(seconds)
        self.world.meter.expire_gateways(self.world.now_us)
        await self.link.exchange_batch()

    def begin(self):
        metered = self.place.begin_request(10, 0.1)
        metered.on_energy = print  # somebody waits
        return metered


@pytest.mark.parametrize("network", NETWORK[1:])
@pytest.mark.parametrize("told", [True, False])
async def test_after_a_blip_nobody_waits_for_its_requests(monkeypatch, network, told):
    pair = Pair(monkeypatch)
    await pair.turn()
    old = [pair.begin() for _ in range(4)]
    if told:
        await pair.turn()
    pair.network = network
    for one in old:
        await pair.turn(2)
        one.end_attempt(tokens=20)
    await pair.turn(0.5)
    assert {one.method for one in pair.link.finished_attempts} == {"estimated"}
    assert len(pair.link.finished_attempts) == 4
    pair.network = "well"
    await pair.turn()
    fresh = pair.begin()
    await pair.turn()
    fresh.end_attempt(tokens=20, first_share=0.5)
    for _ in range(4):
        await pair.turn()
    assert fresh.method == "exclusive"
    assert pair.ledger.open_requests == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", *NETWORK]), st.integers(0, 40)), max_size=60
)


@example([("answer lost", 1), ("begin", 40)], random.Random(0))  # before its first answer
@given(STEPS, st.randoms(use_true_random=False))
async def test_each_request_is_settled_once_and_none_is_left(steps, rng: random.Random):
    with pytest.MonkeyPatch.context() as monkeypatch:
        pair = Pair(monkeypatch)
        begun, running = [], []
        for what, tenths in steps:
            if what == "begin":
                running.append(pair.begin())
                begun.append(running[-1])
            elif what == "end" and running:
                running.pop(rng.randrange(len(running))).end_attempt(tokens=20)
            elif what in NETWORK:
                pair.network = what
            await pair.turn(tenths / 10)
        pair.network = "well"
        for one in running:
            one.end_attempt(tokens=20)
        for _ in range(12):
            await pair.turn()
        assert sorted(one.id for one in pair.link.finished_attempts) == [one.id for one in begun]
        assert (pair.ledger.open_requests, pair.link._unacked_ends) == (0, {})
