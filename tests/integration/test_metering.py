"""Metered joules: where they show, when, and whose they are.

Joules agree with the simulator's truth as well as loopback's delays let them: ROUGHLY. What the
meter attributed and what the gateway shows is the same, exactly.
"""

import asyncio
import contextlib
import json

import pytest

from gateway.config import CarbonConfig, LogConfig, TimeoutsConfig, WeightsConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, metered, model, spent, steady, until

ROUGHLY = 0.1
SEEN = {"exclusive", "apportioned"}
"""Methods of what a meter saw from beginning to end."""
EXPLAIN = {"x-joulegate-explain": "1"}
ABLE = ("chat", "completions", "embeddings")
QUIET = TimeoutsConfig(first_token_seconds=0.5, unary_seconds=0.5)


async def of_requests(gate, **labels):
    """What requests spent by the gateway's counters, whichever way it was had."""
    name = "joulegate_energy_joules_total"
    methods = ("exclusive", "apportioned", "coarse", "estimated")
    return sum([await gate.metric(name, method=method, **labels) for method in methods])


async def all_spent(gate, name, simulator):
    """Wait until all that a simulator spent is counted to its model.

    To requests, to `other`, and to idle what was generated unseen and is too little to be other's.
    """
    joules = spent(simulator) / 1e6

    async def counted():
        total = await gate.metric("joulegate_energy_joules_total", model=name)
        return total == pytest.approx(joules, rel=ROUGHLY)

    await until(counted, f"{joules} J of {name}")


async def test_joules_reach_the_record_the_metrics_and_the_log_once_they_are_final(world, tmp_path):
    simulator = await world.simulator(speed=4.0, truth_fields=steady(), embeddings=True)
    meter = await world.meter(simulator)
    log = tmp_path / "decisions.jsonl"
    gate = await world.gate(
        model("phi-3-mini", metered(simulator, meter), capabilities=ABLE),
        log=LogConfig(str(log)),
        carbon=CarbonConfig(grams_per_kwh=360.0),
    )
    asked = [
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", STREAM | {"stream_options": {"include_usage": True}}),
        ("/v1/embeddings", {"model": "auto", "input": ["one two three", "four"]}),
    ]
    truths, records = {}, {}
    for count, (path, body) in enumerate(asked):
        got = await gate.ask(body, path=path)
        assert got.status == 200
        name = got.headers["x-request-id"]
        answer = got.chunks[-1] if body is asked[1][1] else got.json
        truths[name] = answer["simulated"]["energy_joules"]
        # The meter waits a second at least before it settles anything.
        assert (await gate.record(got))["observed"]["joules"] is None
        assert (await gate.record(got))["observed"]["method"] is None
        assert await gate.metric("joulegate_requests_total") == count + 1
        assert await gate.metric("joulegate_request_energy_joules_count") == count
        records[name] = await gate.settled(name)
    for name, record in records.items():
        observed = record["observed"]
        assert observed["method"] in SEEN
        if record["kind"] != "embeddings":  # one vector's prompt at a time: profiling knows another
            assert observed["joules"] == pytest.approx(truths[name], rel=ROUGHLY)
        assert observed["co2e_grams"] == pytest.approx(observed["joules"] / 3.6e6 * 360)
    assert await gate.metric("joulegate_request_energy_joules_count", model="phi-3-mini") == 3
    joules = sum(record["observed"]["joules"] for record in records.values())
    (ledger,) = meter.ledgers_by_name.values()
    assert ledger.attributed_microjoules / 1e6 == pytest.approx(joules)
    assert await gate.metric("joulegate_request_energy_joules_sum") == pytest.approx(joules)
    assert await of_requests(gate, model="phi-3-mini") == pytest.approx(joules)
    grams = await gate.metric("joulegate_co2e_grams_total")
    assert grams == pytest.approx(joules / 3.6e6 * 360)
    assert await gate.metric("joulegate_unmetered_requests_total") == 0
    assert await gate.metric("joulegate_meter_up") == 1
    await until(lambda: log.exists() and log.read_text().count("\n") >= 3, "the log")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["id"]: line["observed"] for line in lines} == {
        name: record["observed"] for name, record in records.items()
    }
    assert len(lines) == 3


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_the_explain_object_has_what_was_predicted_and_does_not_wait_for_the_rest(
    world, body
):
    simulator = await world.simulator(truth_fields=steady())
    gate = await world.gate(model("phi-3-mini", metered(simulator, await world.meter(simulator))))
    got = await gate.ask(body, EXPLAIN)
    shown = (got.chunks[-1] if body is STREAM else got.json)["joulegate"]
    joules = float(got.headers["x-joulegate-predicted-joules"])
    assert shown["predicted"]["joules"] == pytest.approx(joules, rel=1e-5)
    assert shown["observed"] == {"joules": None, "method": None}


async def test_what_a_client_left_behind_is_metered(world):
    simulator = await world.simulator(speed=1.0, truth_fields=steady())
    gate = await world.gate(model("phi-3-mini", metered(simulator, await world.meter(simulator))))
    for name, body in (("unary", CHAT), ("stream", STREAM)):
        before = spent(simulator)
        task = asyncio.create_task(gate.ask(body | ENDLESS, {"x-request-id": name}))
        await until(lambda before=before: spent(simulator) > before, "work")
        await asyncio.sleep(0.8)  # its first token comes after 0.4 s
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: gate.idle and world.empty)
        record = await gate.settled(name)
        # Of the unary one nobody saw a token: they are guessed, and its joules with them.
        methods = SEEN if body is STREAM else {"estimated"}
        assert record["code"] == 499
        assert record["observed"]["method"] in methods, name
        joules = (spent(simulator) - before) / 1e6
        assert 0.2 * joules < record["observed"]["joules"] < (1 + ROUGHLY) * joules
    total = await of_requests(gate, model="phi-3-mini")
    assert 0.2 * spent(simulator) < total * 1e6 < (1 + ROUGHLY) * spent(simulator)


async def test_an_attempt_in_vain_is_counted_to_the_model_that_spent_it(world):
    slow = await world.simulator(speed=1.0, truth_fields=steady())
    good = await world.simulator("mistral-7b", truth_fields=steady("mistral-7b"))
    meter = await world.meter(slow, good)
    gate = await world.gate(
        model("phi-3-mini", metered(slow, meter)),
        model("mistral-7b", metered(good, meter)),
        weights=WeightsConfig(energy=1),
        timeouts=QUIET,
    )
    got = await gate.ask(CHAT | ENDLESS)
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    assert (await gate.record(got))["observed"]["joules"] is None
    record = await gate.settled(got.headers["x-request-id"])
    assert record["observed"]["method"] in SEEN
    for name, simulator in (("phi-3-mini", slow), ("mistral-7b", good)):
        assert await of_requests(gate, model=name) > 0.2 * spent(simulator) / 1e6
        await all_spent(gate, name, simulator)
    mistral = await of_requests(gate, model="mistral-7b")
    assert record["observed"]["joules"] == pytest.approx(mistral)
    # Only what was answered is a request's energy.
    assert await gate.metric("joulegate_request_energy_joules_count") == 1


async def test_a_silent_backend_costs_what_the_meter_saw(world):
    silent = await world.simulator(truth_fields=steady())
    silent.faults.set_fault("silent")
    gate = await world.gate(
        model("phi-3-mini", metered(silent, await world.meter(silent))), timeouts=QUIET
    )
    got = await gate.ask(STREAM)
    assert got.status == 504
    record = await gate.settled(got.headers["x-request-id"])
    assert record["observed"]["method"] == "estimated"
    assert record["observed"]["joules"] == await of_requests(gate)
    # The meter's own number: it was alone with what an idle device draws, not with hundreds.
    assert record["observed"]["joules"] < 1.0


async def test_a_refused_attempt_is_nobodys(world):
    refusing = await world.simulator(truth_fields=steady())
    refusing.faults.set_fault("status", status=503)
    good = await world.simulator("mistral-7b", speed=4.0, truth_fields=steady("mistral-7b"))
    meter = await world.meter(refusing, good)
    gate = await world.gate(
        model("phi-3-mini", metered(refusing, meter)),
        model("mistral-7b", metered(good, meter)),
        weights=WeightsConfig(energy=1),
    )
    got = await gate.ask(CHAT)
    assert got.headers["x-joulegate-attempts"] == "2"
    record = await gate.settled(got.headers["x-request-id"])
    joules = got.json["simulated"]["energy_joules"]
    assert record["observed"]["joules"] == pytest.approx(joules, rel=ROUGHLY)
    assert await of_requests(gate, model="phi-3-mini") == 0


async def test_requests_in_company_add_up_to_what_the_meter_counted(world):
    simulators = [await world.simulator(name, speed=20.0) for name in ("phi-3-mini", "falcon-7b")]
    meter = await world.meter(*simulators)
    gate = await world.gate(*(model(one.spec.model, metered(one, meter)) for one in simulators))
    names = [f"r{place}" for place in range(40)]

    async def ask(place, name):
        await asyncio.sleep(0.02 * place)
        body = (CHAT, STREAM)[place % 2] | {"model": simulators[place % 3 == 0].spec.model}
        assert (await gate.ask(body, {"x-request-id": name})).status == 200

    await asyncio.gather(*(ask(*one) for one in enumerate(names)))
    records = [await gate.settled(name) for name in names]
    assert {record["observed"]["method"] for record in records} <= SEEN
    assert "apportioned" in {record["observed"]["method"] for record in records}
    attributed = (
        sum(ledger.attributed_microjoules for ledger in meter.ledgers_by_name.values()) / 1e6
    )
    assert await of_requests(gate) == pytest.approx(attributed, rel=1e-9)
    assert sum(r["observed"]["joules"] for r in records) == pytest.approx(attributed, rel=1e-9)
    for ledger in meter.ledgers_by_name.values():
        parts = (
            ledger.attributed_microjoules
            + ledger.idle_microjoules
            + ledger.other_microjoules
            + ledger.unsettled_microjoules
        )
        assert parts == ledger.advanced_microjoules > 0
