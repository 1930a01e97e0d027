"""A link to a meter that a test scripts."""

import msgspec
import pytest

from backends.meter.client.meter_client import MeterLink
from backends.meter.protocol import EventBatch, MeterAck


class Reply:
    """An answer as Client.post returns it."""

    def __init__(self, body, status=200):
        self.status = status
        self._body = body

    async def read_body(self, limit):
        assert len(self._body) <= limit
        return self._body

    def close(self):
        pass


class Meter:
    """Stands where the HTTP client would: takes batches, gives the next of `answers`."""

    def __init__(self):
        self.batches = []
        self.answers = []
        self.name = "one"

    async def post(self, url, body, headers):
        self.url, self.headers = str(url), headers
        self.batches.append(msgspec.json.decode(body, type=EventBatch))
        answer = self.answers.pop(0) if self.answers else MeterAck(self.name, [], [])
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Reply):
            return answer
        return Reply(msgspec.json.encode(answer))

    def kinds(self, batch=-1):
        return [type(event).__name__ for event in self.batches[batch].events]


@pytest.fixture
def meter():
    return Meter()


@pytest.fixture
def link(meter):
    made = MeterLink("http://meter:9464", meter, secret="s")
    made.add_backend("a:8000", "")
    return made


def begun(link):
    metered = link.begin_request(link._backend_meters[0], 10, 1000)
    metered.on_energy = print  # somebody waits
    return metered
