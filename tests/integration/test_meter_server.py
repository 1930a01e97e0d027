"""`joulegate meter` as a process of its own, over simulated backends."""

import asyncio
import json
import signal
import time

import aiohttp
import pytest
import yaml

from backends.meter.daemon import server
from backends.meter.daemon.ledger_runner import LedgerSpec
from backends.meter.protocol import BackendRef, RequestBegin, RequestEnd, RequestProgress
from backends.meter.sources.simulated import SimulatorSource
from backends.simulator.server import start_simulator
from tests.integration.harness import total, until
from tests.integration.meters import SECRET, Client, metering, of
from tests.integration.process import joulegate
from tests.powercap import Powercap


async def balance(client):
    """What the page's devices counted and where it went, in microjoules."""
    _, page = await client.get("/metrics")
    parts = ("joulegate_meter_attributed_joules_total", "joulegate_meter_unsettled_joules")
    spent = sum(round(total(page, part) * 1e6) for part in parts)
    return spent, round(total(page, "joulegate_meter_energy_joules_total") * 1e6)


async def test_a_request_is_measured_and_every_joule_is_accounted_for(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator), "--backend", simulator.url) as (process, client):
        await client.post(RequestBegin(1, 0, 0, 10, 100_000))
        await asyncio.sleep(0.3)
        await client.post(RequestProgress(1, 0, 1), RequestBegin(2, 0, 0, 10, 100_000))
        await asyncio.sleep(0.3)
        await client.post(RequestEnd(1, 0, 10), RequestProgress(2, 50_000, 1), RequestEnd(2, 0, 10))
        one, two = await client.settled(1, 2)
        assert one.microjoules > 0
        assert two.microjoules > 0
        assert {one.method, two.method} == {"apportioned"}
        for _ in range(5):
            spent, counted = await balance(client)
            assert spent == counted > 0
        _, health = await client.get("/health")
        (ledger,) = json.loads(health)["ledgers"].values()
        assert ledger["source"] == "simulator"
        assert ledger["open_requests"] == 0
        assert ledger["devices"][0]["id"] == simulator.url.removeprefix("http://")
        await until(client.post, "an answer")
        assert client.answer.period_seconds > 0
        process.send(signal.SIGTERM)
        assert await process.ended() == 0


async def test_the_servers_own_joules_are_told_beside_the_ledgers(world, tmp_path):
    simulator, files = await world.simulator(speed=1), Powercap(tmp_path / "sys")
    path = tmp_path / "meter.yaml"
    ledger = {"source": "simulator", "url": simulator.url}
    path.write_text(
        yaml.safe_dump({"ledgers": [ledger], "host": "rapl", "powercap": str(files.root)})
    )
    async with metering("--config", path) as (_, client):

        async def told():
            await client.post()
            return client.answer.host

        assert (await until(told, "a share of the host")).source == "rapl"
        files.advance(70.0, 50.0)

        async def read():
            return (await told()).microjoules == 120_000_000

        await until(read, "what the packages drew")
        page = (await client.get("/metrics"))[1]
        assert total(page, "joulegate_meter_host_energy_joules_total") == 120.0
        assert total(page, "joulegate_meter_host_up", source="rapl") == 1.0
        host = json.loads((await client.get("/health"))[1])["host"]
        assert (host["counting"], host["devices"]) == (True, ["package-0", "package-1"])


async def test_two_gateways_share_a_backend(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator)) as (_, first):
        second = Client(first.url, first._http, name="gw2")
        await first.post(RequestBegin(1, 0, 0, 10, 0))
        await second.post(RequestBegin(1, 0, 0, 10, 0))
        await asyncio.sleep(0.5)
        await first.post(RequestProgress(1, 450_000, 1), RequestEnd(1, 0, 30))
        await second.post(RequestProgress(1, 450_000, 1), RequestEnd(1, 0, 30))
        (mine,) = await first.settled(1)
        (theirs,) = await second.settled(1)
        assert mine.method == theirs.method == "apportioned"
        assert mine.microjoules == pytest.approx(theirs.microjoules, rel=0.2)

        async def told():
            """Idle energy, of which each part is told to one of the two."""
            for client in (first, second):
                await client.post()
            return first.spent["idle"] + second.spent["idle"]

        told = await until(told, "idle energy")
        _, page = await first.get("/metrics")
        attributed = total(page, "joulegate_meter_attributed_joules_total", kind="request")
        assert round(attributed * 1e6) == mine.microjoules + theirs.microjoules
        idle = total(page, "joulegate_meter_attributed_joules_total", kind="idle")
        assert 0 < told <= round(idle * 1e6) + 1


async def test_a_meter_that_was_started_anew_says_so_and_goes_on(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator)) as (process, client):
        first = (await client.post(RequestBegin(1, 0, 0, 10, 0), RequestEnd(1, 0, 1))).meter
        await client.settled(1)
        port = client.url.rpartition(":")[2]
        process.send(signal.SIGKILL)
        await process.ended()
        async with joulegate("meter", "--port", port, *of(simulator)) as again:
            await again.says("metering on")
            await client.counting()
            began = time.monotonic()
            answer = await client.post(RequestBegin(2, 5_000_000, 0, 10, 0))
            assert answer.meter != first
            client.received = 0
            await asyncio.sleep(0.2)
            age_us = round((time.monotonic() - began) * 1e6)
            await client.post(
                RequestEnd(2, 0, 5), RequestBegin(3, age_us, 0, 10, 0), RequestEnd(3, 0, 5)
            )
            two, three = await client.settled(2, 3)
            assert two.method == "estimated"  # it began before this meter did
            assert three.method == "apportioned"
            spent, counted = await balance(client)
            assert spent == counted


async def test_a_backend_that_goes_away_and_comes_back(world):
    simulator = await world.simulator(speed=1)
    async with metering(*of(simulator)) as (process, client):
        await simulator.close()
        device = simulator.url.removeprefix("http://")
        await until(lambda: process.said("cannot be read"), "the loss", seconds=30)
        status, body = await client.get("/health")
        assert status == 503
        assert json.loads(body)["status"] == "degraded"
        (reason,) = json.loads(body)["reasons"]
        assert f"simulator at {device} cannot be read" in reason
        _, page = await client.get("/metrics")
        assert total(page, "joulegate_meter_counter_up", ledger="default") == 0
        await client.post(RequestBegin(1, 0, 0, 10, 0))
        async with await start_simulator(simulator.spec, port=simulator.port):
            await client.counting()
            await client.post(RequestProgress(1, 0, 1), RequestEnd(1, 0, 5))
            (observation,) = await client.settled(1)
            assert observation.method == "estimated"
            _, page = await client.get("/metrics")
            assert total(page, "joulegate_meter_source_errors_total") >= 1
            assert total(page, "joulegate_meter_counter_up", ledger="default") == 1
            assert (
                total(page, "joulegate_meter_source_info", device=device, source="simulator") == 1
            )
            spent, counted = await balance(client)
            assert spent == counted


async def test_a_config_of_two_ledgers(world, tmp_path):
    one, two = await world.simulator(speed=1), await world.simulator("mistral-7b", speed=1)
    path = tmp_path / "meter.yaml"
    ledgers = [
        {
            "name": name,
            "source": "simulator",
            "url": simulator.url,
            "backends": [{"url": simulator.url, "names": [f"{name}:8000"]}],
        }
        for name, simulator in (("phi", one), ("mistral", two))
    ]
    path.write_text(yaml.safe_dump({"ledgers": ledgers, "secret": "${S}", "hz": 50}))
    async with metering("--config", path, secret=SECRET, environ={"S": SECRET}) as (_, client):
        client.places = [
            BackendRef("mistral:8000"),
            BackendRef("elsewhere"),
            BackendRef("phi:8000"),
        ]
        await client.post(
            RequestBegin(1, 400_000, 0, 10, 0),
            RequestProgress(1, 300_000, 1),
            RequestEnd(1, 0, 20),
            RequestBegin(2, 0, 1, 10, 0),
            RequestEnd(2, 0, 20),
        )
        assert client.answer.unknown == ["elsewhere"]
        await client.settled(1)
        assert 2 not in client.observed
        _, page = await client.get("/metrics")
        name = "joulegate_meter_attributed_joules_total"
        assert total(page, name, ledger="mistral", kind="request") > 0
        assert total(page, name, ledger="phi", kind="request") == 0


async def test_a_meter_within_a_process_sees_an_update_every_period(world):
    simulator = await world.simulator(speed=1)
    source = SimulatorSource(simulator.url, period_seconds=0.1)
    async with await server.start_meter([LedgerSpec("gpu", source)]) as running:
        (station,) = running.meter.runners.values()
        await until(lambda: station.sampler.period_us, "the period", seconds=30)
        assert station.sampler.period_us == pytest.approx(100_000, rel=0.1)
        assert running.ledgers_by_name["gpu"] is station.ledger
    assert not station.sampler._thread.is_alive()


async def test_a_meter_without_any_counter_stays_up_and_says_why():
    """A driver that is installed later, or a GPU that comes back, is found then."""
    nothing = ("--source", "nvml", "--device", "GPU-none")
    async with (
        joulegate("meter", "--port", 0, *nothing) as process,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
    ):
        client = Client((await process.says(r"metering on (\S+)"))[1], http)

        async def refused():
            status, body = await client.get("/health")
            return status == 503 and "NVML" in body and json.loads(body)["reasons"]

        (reason,) = await until(refused, "the reason", seconds=30)
        assert reason.startswith("ledger default: ")
        await client.post(RequestBegin(1, 0, 0, 10, 0), RequestEnd(1, 0, 1))
        (observation,) = await client.settled(1)
        assert (observation.method, observation.microjoules) == ("estimated", 0)
        _, page = await client.get("/metrics")
        assert total(page, "joulegate_meter_counter_up", ledger="default") == 0
