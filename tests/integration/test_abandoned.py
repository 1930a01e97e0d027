"""What was spent on requests that brought nobody an answer, and whose they are booked as."""

import asyncio
import contextlib

import pytest
from aiohttp import web

from gateway.config import RetryConfig, TimeoutsConfig, WeightsConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, until

QUIET = TimeoutsConfig(first_token_seconds=0.3, unary_seconds=0.3)


def failing(status=500, **body):
    """Answer everything with an error."""

    async def answer(request, seen):
        del request, seen
        return web.json_response(body or {"error": {"message": "no"}}, status=status)

    return answer


async def booked(gate, request_id):
    """The record of a request, once there is one."""

    async def there():
        got = await gate.get(f"/v1/requests/{request_id}")
        return got.json if got.status == 200 else None

    return await until(there, "the record")


async def check_estimate(gate, record):
    """Joules are there and counted; tokens, which nobody counted, are not made up."""
    assert record["model"] == "phi-3-mini"
    observed = record["observed"]
    assert (observed["method"], observed["joules"] > 0) == ("estimated", True)
    labels = {"model": "phi-3-mini", "method": "estimated"}
    spent = await gate.metric("joulegate_energy_joules_total", **labels)
    assert spent == pytest.approx(observed["joules"])
    assert await gate.metric("joulegate_request_energy_joules_count", **labels) == 1
    assert await gate.metric("joulegate_tokens_total") == 0
    assert record["usage"]["prompt_tokens"] is None
    assert record["usage"]["completion_tokens"] is None


async def test_a_unary_request_that_its_client_gave_up(world):
    simulator = await world.simulator(speed=1.0)
    gate = await world.gate(model("phi-3-mini", simulator))
    task = asyncio.create_task(gate.ask(CHAT | ENDLESS, {"x-request-id": "left"}))
    await until(lambda: simulator.engine.running_requests == 1)
    await asyncio.sleep(0.3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until(lambda: gate.idle)
    record = await booked(gate, "left")
    assert record["code"] == 499
    await check_estimate(gate, record)


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_an_attempt_that_timed_out(world, body):
    simulator = await world.simulator()
    simulator.faults.set_fault("silent")
    gate = await world.gate(model("phi-3-mini", simulator), timeouts=QUIET)
    got = await gate.ask(body)
    assert got.status == 504
    await check_estimate(gate, await gate.record(got))


async def test_an_attempt_that_timed_out_is_not_booked_on_who_answered(world):
    silent, good = await world.simulator(), await world.recorder()
    silent.faults.set_fault("silent")
    gate = await world.gate(
        model("phi-3-mini", silent),
        model("mistral-7b", good),
        weights=WeightsConfig(energy=1),
        timeouts=QUIET,
    )
    got = await gate.ask()
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    record = await gate.record(got)
    assert await gate.metric("joulegate_energy_joules_total", model="phi-3-mini") > 0
    spent = await gate.metric("joulegate_energy_joules_total", model="mistral-7b")
    assert spent == pytest.approx(record["observed"]["joules"])
    assert await gate.metric("joulegate_tokens_total", model="phi-3-mini") == 0
    assert await gate.metric("joulegate_tokens_total", model="mistral-7b") == 6


async def test_nobody_pays_for_a_backend_that_was_never_reached(world):
    simulator = await world.simulator()
    gate = await world.gate(model("phi-3-mini", simulator))
    simulator.faults.set_fault("refuse")
    got = await gate.ask()
    assert got.status == 503
    assert not (await gate.record(got))["observed"]["joules"]
    assert await gate.metric("joulegate_energy_joules_total") == 0


async def test_a_retry_is_counted_against_the_model_that_failed(world):
    bad, good = await world.recorder(failing()), await world.recorder()
    gate = await world.gate(
        model("phi-3-mini", bad), model("mistral-7b", good), weights=WeightsConfig(energy=1)
    )
    got = await gate.ask()
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    failed = {"model": "phi-3-mini", "reason": "status_5xx"}
    assert await gate.metric("joulegate_retries_total", **failed) == 1
    assert await gate.metric("joulegate_retries_total", model="mistral-7b") == 0
    assert await gate.metric("joulegate_requests_total", model="mistral-7b", code="200") == 1


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_failing_everywhere_is_the_last_ones(world, body):
    bad, worse = await world.recorder(failing()), await world.recorder(failing(503))
    gate = await world.gate(
        model("phi-3-mini", bad),
        model("mistral-7b", worse),
        weights=WeightsConfig(energy=1),
        retry=RetryConfig(budget_start=10),
    )
    got = await gate.ask(body)
    assert got.status == 503
    record = await gate.record(got)
    assert [attempt["model"] for attempt in record["attempts"]] == ["phi-3-mini", "mistral-7b"]
    assert record["model"] == "mistral-7b"
    assert record["backend"] == record["attempts"][-1]["backend"]
    assert await gate.metric("joulegate_requests_total", model="mistral-7b", code="503") == 1
    assert await gate.metric("joulegate_requests_total", model="none") == 0
    assert await gate.metric("joulegate_retries_total", model="phi-3-mini") == 1
    # Neither answered, so neither has times or predictions to be compared.
    assert await gate.metric("joulegate_request_duration_seconds_count") == 0


async def test_a_refused_request_is_the_refusing_models(world):
    backend = await world.recorder(failing(400, error={"message": "bad seed", "code": 400}))
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask()
    assert (got.status, got.json["error"]["message"]) == (400, "bad seed")
    record = await gate.record(got)
    assert (record["model"], record["code"]) == ("phi-3-mini", 400)
    assert record["backend"] == gate.backend(backend).label
    assert await gate.metric("joulegate_requests_total", model="phi-3-mini", code="400") == 1
    assert await gate.metric("joulegate_requests_total", model="none") == 0


async def test_a_request_that_reached_nobody_has_no_model(world):
    gate = await world.gate(model("phi-3-mini", await world.recorder()))
    got = await gate.ask(CHAT | {"model": "nope"})
    assert got.status == 404
    assert (await gate.record(got))["model"] is None
    assert await gate.metric("joulegate_requests_total", model="none", code="404") == 1
