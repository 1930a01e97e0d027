"""A meter under a flood, over real sockets: memory is bounded and it goes on metering."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from backends.meter.daemon.quotas import MAX_OPEN_REQUESTS
from backends.meter.protocol import RequestBegin, RequestEnd, RequestProgress
from tests.integration.harness import total, until
from tests.integration.meters import Client, metering, of

NAMES, BATCHES, EVENTS = 10, 10, 4_000
MEBIBYTE = 1 << 20


def resident_bytes(process):
    pid = process._process.pid
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


async def test_bodies_that_never_end_are_few_and_given_up(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator)) as (_, client), contextlib.AsyncExitStack() as stack:
        host, port = client.url.removeprefix("http://").split(":")
        slow = []
        for _ in range(16):
            reader, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(b"POST /v1/events HTTP/1.1\r\nHost: m\r\nContent-Length: 99\r\n\r\n{")
            slow.append(reader)

        async def refused():
            return (await client.send(b"{}"))[0] == 429

        await until(refused, "a batch too many")
        for reader in slow:
            assert b" 408 " in await asyncio.wait_for(reader.readline(), 60)
        await client.post()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' /proc")
async def test_a_flood_fills_a_bounded_part_of_memory_and_others_are_measured(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator)) as (process, honest):
        before = resident_bytes(process)
        for number in range(NAMES):
            flood = Client(honest.url, honest._http, name=f"flood-{number}")
            for batch in range(BATCHES):
                first = batch * EVENTS
                ids = range(first, first + EVENTS)
                await flood.post(*(RequestBegin(n, 0, 0, 1_000, 1_000) for n in ids))
            for tokens in range(2, 40):
                await flood.post(*(RequestProgress(n, 0, tokens) for n in range(EVENTS)))
        grown = resident_bytes(process) - before
        _, page = await honest.get("/metrics")
        assert total(page, "joulegate_meter_requests_open") <= MAX_OPEN_REQUESTS // 2
        begun = NAMES * BATCHES * EVENTS
        refused = total(page, "joulegate_meter_refused_events_total", reason="open_requests")
        taken = total(page, "joulegate_meter_events_total", kind="begin")
        assert refused + taken == begun
        # The slower the machine, the more of a silent name's requests are given up meanwhile.
        assert refused > begun // 2
        assert grown < 64 * MEBIBYTE
        await honest.post(RequestBegin(1, 0, 0, 10, 0))
        await honest.post(RequestProgress(1, 0, 1), RequestEnd(1, 0, 5))
        _, page = await honest.get("/metrics")
        taken = total(page, "joulegate_meter_events_total", kind="end")
        assert taken == 1
