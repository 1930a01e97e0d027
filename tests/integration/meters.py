"""`joulegate meter` as a process of its own, and one gateway's side of it by hand."""

import contextlib
import os

import aiohttp
import msgspec

from backends.meter.protocol import EVENTS_PATH, BackendRef, EventBatch, MeterAck
from tests.integration.harness import until
from tests.integration.process import joulegate

SECRET = "wattever"


class Client:
    """One gateway's side, by hand."""

    def __init__(self, url, http, name="gw", secret=None):
        self.url = url
        self.name = name
        self.places = [BackendRef("a")]
        self.observed = {}
        self.spent = {"idle": 0, "other": 0}
        self.received = 0
        self.answer = None
        self._http = http
        self._headers = {"authorization": f"Bearer {secret}"} if secret else {}

    async def get(self, path):
        async with self._http.get(self.url + path) as response:
            return response.status, await response.text()

    async def send(self, body, **headers):
        async with self._http.post(
            self.url + EVENTS_PATH, data=body, headers=self._headers | headers
        ) as response:
            return response.status, await response.read()

    async def post(self, *events):
        batch = EventBatch(self.name, self.places, list(events), self.received)
        status, body = await self.send(msgspec.json.encode(batch))
        assert status == 200, body
        self.answer = msgspec.json.decode(body, type=MeterAck)
        for observation in self.answer.observations:
            self.observed[observation.id] = observation
        for spending in self.answer.spendings:
            if spending.number > self.received:
                self.spent[spending.kind] += spending.microjoules
        numbers = [one.number for one in (*self.answer.observations, *self.answer.spendings)]
        self.received = max([self.received, *numbers])
        return self.answer

    async def settled(self, *numbers):
        """Post until these requests are observed."""

        async def found():
            await self.post()
            return all(number in self.observed for number in numbers)

        await until(found, f"{numbers} to settle", seconds=30)
        return [self.observed[number] for number in numbers]

    async def counting(self):
        async def found():
            with contextlib.suppress(OSError):
                return (await self.get("/health"))[0] == 200
            return False

        await until(found, "the counters", seconds=60)
        return self


@contextlib.asynccontextmanager
async def metering(*arguments, secret=None, environ=None):
    """A meter that counts, with a client for it."""
    options = {"env": os.environ | environ} if environ else {}
    async with (
        joulegate("meter", "--port", 0, *arguments, **options) as process,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        found = await process.says(r"metering on (http://127\.0\.0\.1:\d+)")
        yield process, await Client(found[1], http, secret=secret).counting()


def of(simulator):
    return "--source", "simulator", "--url", simulator.url
