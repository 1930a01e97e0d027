"""The boundary over real sockets: host, idle, PUE, CO2e and money in records, log and metrics."""

import json

import pytest
from aiohttp import web

from backends.meter.sources.rapl import RaplSource
from gateway.boundary_config import BoundaryConfig
from gateway.config import CarbonConfig, LogConfig
from tests.integration.harness import CHAT, STREAM, metered, model, steady, total, until
from tests.json_schema import list_violations
from tests.powercap import Powercap

WATTS, PUE, PRICE = 100.0, 1.4, 0.3
MODEL = {"model": "phi-3-mini"}
BOUNDARY = BoundaryConfig(WATTS, PUE, PRICE, "EUR")


async def refuse(request, seen):
    """Answer everything with an error."""
    del request, seen
    return web.json_response({"error": {"message": "no"}}, status=500)


async def test_every_joule_of_a_request_its_server_and_its_building_is_told_once(world, tmp_path):
    simulator = await world.simulator(speed=4.0, truth_fields=steady())
    log = tmp_path / "decisions.jsonl"
    gate = await world.gate(
        model("phi-3-mini", metered(simulator, await world.meter(simulator))),
        boundary=BOUNDARY,
        carbon=CarbonConfig(grams_per_kwh=360.0),
        log=LogConfig(str(log)),
    )
    names = [(await gate.ask(body)).headers["x-request-id"] for body in (CHAT, STREAM, CHAT)]
    records = [(await gate.settled(name))["observed"] for name in names]
    for observed in records:
        lines, own = observed["boundary"], observed["joules"] + observed["boundary"]["host_joules"]
        # One at a time: each had its server for itself, for no longer than the request took.
        assert 0.0 < lines["host_joules"] <= WATTS * observed["seconds"]
        assert lines["overhead_joules"] == pytest.approx(own * (PUE - 1.0))
        assert lines["facility_joules"] == pytest.approx(own * PUE)
        with_idle = (own + lines["idle_joules"]) * PUE
        assert lines["facility_joules_with_idle"] == pytest.approx(with_idle)
        assert lines["co2e_grams"] == pytest.approx(own * PUE / 1e4)
        assert lines["co2e_grams_with_idle"] == pytest.approx(with_idle / 1e4)
        assert lines["cost"] == pytest.approx(own * PUE / 3.6e6 * PRICE)
        assert (lines["cost_with_idle"] > lines["cost"], lines["currency"]) == (True, "EUR")
    page = (await gate.get("/metrics")).raw.decode()

    def read(name, **labels):
        return total(page, f"joulegate_{name}_total", **MODEL, **labels)

    host = sum(observed["boundary"]["host_joules"] for observed in records)
    wall = sum(observed["boundary"]["facility_joules"] for observed in records)
    assert read("host_energy_joules", kind="requests") == pytest.approx(host)
    assert read("facility_energy_joules", kind="requests") == pytest.approx(wall)
    idle = read("host_energy_joules", kind="idle") + read("energy_joules", method="idle")
    assert idle > 0.0
    assert read("facility_energy_joules", kind="idle") == pytest.approx(idle * PUE)
    everything = PUE * (read("host_energy_joules") + read("energy_joules"))
    assert read("facility_energy_joules") == pytest.approx(everything)
    assert read("facility_co2e_grams") == pytest.approx(everything / 1e4)
    assert read("cost", currency="EUR") == pytest.approx(everything / 3.6e6 * PRICE)
    await until(lambda: log.exists() and log.read_text().count("\n") >= 3, "the log")
    logged = {
        line["id"]: line["observed"] for line in map(json.loads, log.read_text().split("\n")[:3])
    }
    assert logged == dict(zip(names, records, strict=True))


async def test_the_document_describes_a_record_and_a_decision_as_they_are(world):
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()),
        model("mistral-7b", await world.simulator("mistral-7b"), context=9),
        boundary=BOUNDARY,
        carbon=CarbonConfig(grams_per_kwh=360.0),
    )
    schemas = (await gate.get("/schema/openapi.json")).json["components"]["schemas"]
    for body in (CHAT, STREAM, CHAT | {"model": "phi-3-mini"}, b"no json"):
        record = await gate.record(await gate.ask(body))
        wrong = list_violations(record, schemas["Record"], schemas)
        assert not wrong, "\n".join(wrong)
    assert record["observed"]["boundary"] is None
    decision = (await gate.ask(CHAT, path="/v1/route")).json
    assert len(decision["candidates"]) == len(decision["excluded"]) == 1
    assert list_violations(decision, schemas["Decision"], schemas) == []
    # And the check can fail: what is not described, what is missing, what is of another type.
    del decision["tokens"]["output"]
    wrong = list_violations(decision | {"score": "1", "more": 0}, schemas["Decision"], schemas)
    assert sorted(wrong) == [
        "$.score: '1' is no number", "$.tokens: no output", "$: more is not described",
    ]  # fmt: skip


async def test_a_failing_server_and_a_retry_leave_no_request_being_served(world):
    """What began ends, whatever came of it: afterwards all watts are idle."""
    simulator = await world.simulator()
    gate = await world.gate(
        model("mistral-7b", await world.recorder(refuse)),
        model("phi-3-mini", simulator),
        boundary=BOUNDARY,
    )
    got = await gate.ask(CHAT, {"x-joulegate-weight-accuracy": "1"})
    assert (got.status, got.headers["x-joulegate-attempts"]) == (200, "2")
    name = "joulegate_host_energy_joules_total"
    used = await gate.metric(name, kind="requests")
    assert used >= await gate.metric(name, kind="requests", **MODEL) > 0.0
    before = await gate.metric(name, kind="idle")

    async def idle():
        return await gate.metric(name, kind="idle") > before

    await until(idle, "idle joules")
    assert await gate.metric(name, kind="requests") == used


async def test_a_server_whose_meter_reads_rapl_is_charged_what_it_drew(world, tmp_path):
    files, simulator = Powercap(tmp_path), await world.simulator()
    meter = await world.meter(simulator, host_source=RaplSource(root=tmp_path, coarse=True))
    gate = await world.gate(
        model("phi-3-mini", metered(simulator, meter)), boundary=BoundaryConfig(WATTS, PUE)
    )

    async def read(name):
        async with gate.http.get(f"{meter.url}/metrics") as answer:
            return total(await answer.text(), f"joulegate_meter_{name}")

    async def up():
        return await read("host_up") == 1.0

    async def counted():
        files.advance(30.0, 20.0)
        return await gate.metric("joulegate_host_energy_joules_total", source="rapl") > 0.0

    await until(up, "the host's counter")
    await until(counted, "joules by RAPL")
    got = await gate.ask(CHAT)

    async def settled():
        return (await gate.record(got))["observed"]["boundary"]

    lines = await until(settled, "the joules")
    assert (lines["host_source"], lines["host_joules"] > 0.0) == ("rapl", True)

    async def all_read():
        return await read("host_energy_joules_total") == pytest.approx(sum(files.values) / 1e6)

    await until(all_read, "the meter to have read all that was drawn, and no more")


async def test_without_a_boundary_there_is_none(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    got = await gate.ask(CHAT)
    assert (await gate.record(got))["observed"]["boundary"] is None
    assert "joulegate_facility" not in (await gate.get("/metrics")).raw.decode()


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_an_answer_tells_its_impact_to_who_asks(world, body):
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()),
        boundary=BOUNDARY,
        carbon=CarbonConfig(grams_per_kwh=360.0),
    )
    got = await gate.ask(body, {"x-joulegate-impact": "true"})
    answer = got.chunks[-1] if body is STREAM else got.json
    usage = answer["usage"]
    record = await gate.record(got)
    for name in ("prompt_tokens", "completion_tokens"):
        assert usage[name] == record["usage"][name]
    energy, carbon = usage["energy"], usage["carbon"]
    # Without a meter the record has the same estimate.
    assert energy["joules"] == pytest.approx(record["observed"]["joules"])
    assert energy["method"] == "estimated"
    assert 0.0 < energy["host_joules"] <= record["observed"]["boundary"]["host_joules"]
    wall = (energy["joules"] + energy["host_joules"]) * PUE
    assert energy["facility_joules"] == pytest.approx(wall)
    assert carbon["kWh"]["min"] == pytest.approx(wall / 3.6e6)
    assert carbon["kgCO2eq"]["min"] == pytest.approx(wall / 3.6e6 * 0.36)
    assert carbon["kWh"]["max"] >= carbon["kWh"]["min"]
    assert answer["model"] == "phi-3-mini"
    asked = body | ({"stream_options": {"include_usage": True}} if body is STREAM else {})
    plain = await gate.ask(asked)
    last = plain.chunks[-1] if body is STREAM else plain.json
    assert not {"energy", "carbon"} & last["usage"].keys()


async def test_without_boundary_and_intensity_an_impact_is_the_accelerators(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    got = await gate.ask(CHAT | {"joulegate": {"impact": True, "explain": True}})
    usage = got.json["usage"]
    kwh = usage["energy"]["joules"] / 3.6e6
    assert usage["carbon"] == {"kWh": {"min": pytest.approx(kwh), "max": pytest.approx(kwh)}}
    assert usage["energy"]["host_joules"] == 0.0
    assert got.json["joulegate"]["model"] == "phi-3-mini"
