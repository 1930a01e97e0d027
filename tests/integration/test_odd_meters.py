"""Meters that hang, refuse, lie or talk nonsense: no request suffers, joules are estimated."""

import asyncio

import pytest
from aiohttp import web

from tests.integration.fake_meter import FakeMeter, answer, observing
from tests.integration.harness import CHAT, STREAM, metered, model, until

COUNT = 6


async def hanging(batch):
    del batch
    await asyncio.sleep(3600)


def with_status(status):
    return lambda batch: web.json_response(
        {"error": {"message": str(batch["received"])}}, status=status
    )


def saying(body, content_type="application/json"):
    return lambda _: web.Response(body=body, content_type=content_type)


def ended(batch):
    return [event[1] for event in batch["events"] if event[0] == "e"]


def sourly(*row):
    """Tell a spending or an observation that cannot be, with each answer."""

    def tell(batch):
        if len(row) == 4 and isinstance(row[1], str):
            return answer(spendings=[row])
        return answer([[row[0], number, *row[1:]] for number in ended(batch)])

    return tell


ODD = {
    "hangs": hanging,
    "refuses": with_status(401),
    "breaks": with_status(500),
    "finds-nothing": with_status(404),
    "redirects": lambda _: web.Response(status=307, headers={"location": "http://127.0.0.1:9/"}),
    "html": saying(b"<html>", "text/html"),
    "nothing": saying(b""),
    "half": saying(b'{"meter": "x", "observations": [[1, '),
    "other-shape": saying(b'{"meter": 5}'),
    "no-utf-8": saying(b'{"meter": "\xff", "observations": [], "spendings": []}'),
    "deep": saying(b"[" * 100_000),
    "huge": saying(b'{"meter": "x", "unknown": ["' + b"x" * (3 << 20) + b'"]}'),
    "negative-number": sourly(-1, 5, "exclusive"),
    "negative-joules": sourly(1, -5, "exclusive"),
    "endless-joules": sourly(1, 10**40, "exclusive"),
    "no-such-method": sourly(1, 5, "guessed"),
    "negative-idle": sourly(1, "x", "idle", -5),
}


async def test_none_of_them_harms_a_request(world):
    """All at once, each with a model of its own."""
    backend_of, models = {}, []
    for name, odd in ODD.items():
        meter = await world.stack.enter_async_context(FakeMeter(odd))
        backend_of[name] = await world.recorder()
        models.append(model(name, metered(backend_of[name], meter), profile="phi-3-mini"))
    gate = await world.gate(*models)
    asks = [
        gate.ask((CHAT, STREAM)[place % 2] | {"model": name})
        for name in ODD
        for place in range(COUNT)
    ]
    answers = await asyncio.gather(*asks)
    assert {got.status for got in answers} == {200}

    async def given_up():
        labels = {"method": "estimated"}
        count = await gate.metric("joulegate_request_energy_joules_count", **labels)
        return count == COUNT * len(ODD)

    await until(given_up, "all to be estimated")
    assert await gate.metric("joulegate_unmetered_requests_total") == COUNT * len(ODD)
    for got in answers:
        observed = (await gate.record(got))["observed"]
        assert (observed["method"], observed["joules"] > 0) == ("estimated", True)
    # The others lie only of requests that have ended, and none is left.
    broken = backend_of.keys() - {
        "negative-number", "negative-joules", "endless-joules", "no-such-method",
    }  # fmt: skip
    up = {
        name: await gate.metric(
            "joulegate_meter_up", meter=gate.backend(backend_of[name]).meter.link.label
        )
        for name in broken
    }
    assert up == dict.fromkeys(broken, 0.0)
    # Deadlines and books go on.
    assert gate.idle
    assert (await gate.get("/ready")).status == 200


async def test_what_is_told_twice_or_of_nobody_counts_once(world):
    """Duplicates, strangers and requests that still run."""

    def tell(batch):
        told = [[1, 10**9, 5_000_000, "exclusive"], [2, 0, 5_000_000, "exclusive"]]
        for number in ended(batch):
            told += [[3, number, 2_000_000, "exclusive"], [3, number, 3_000_000, "apportioned"]]
        spent = [
            [number, place, "idle", 1_000_000] for number, place in enumerate(("x", *known), 4)
        ]
        return answer(told, spent, period_seconds=0.1)

    meter = await world.stack.enter_async_context(FakeMeter(tell))
    backend = await world.recorder()
    known = [backend.url.removeprefix("http://")]
    gate = await world.gate(model("phi-3-mini", metered(backend, meter)))
    got = await gate.ask(CHAT)

    async def final():
        return (await gate.record(got))["observed"]["joules"] is not None

    await until(final, "the observation")
    heard = len(meter.batches)
    await until(lambda: len(meter.batches) > heard + 2, "more batches")
    assert (await gate.record(got))["observed"]["joules"] == 2.0
    assert await gate.metric("joulegate_request_energy_joules_count") == 1
    # Repeated with each answer, entered once; nobody has heard of the backend x.
    assert await gate.metric("joulegate_energy_joules_total") == 2.0 + 1.0
    assert await gate.metric("joulegate_energy_joules_total", method="idle") == 1.0
    assert meter.batches[-1]["received"] == 5


async def test_a_backend_that_the_meter_does_not_know_is_estimated_at_once(world):
    backends = [await world.recorder(), await world.recorder()]
    label = backends[0].url.removeprefix("http://")
    proper = observing()

    def tell(batch):
        response = proper(batch)
        body = response.text.replace('"spendings"', f'"unknown": ["{label}"], "spendings"')
        return web.Response(body=body, content_type="application/json")

    meter = await world.stack.enter_async_context(FakeMeter(tell))
    gate = await world.gate(
        model("phi-3-mini", metered(backends[0], meter)),
        model("mistral-7b", metered(backends[1], meter)),
    )
    await until(lambda: len(meter.batches) > 0 and not gate.backend(backends[0]).meter.has_ledger)
    strange = await gate.ask(CHAT | {"model": "phi-3-mini"})
    known = await gate.ask(CHAT | {"model": "mistral-7b"})
    assert (await gate.record(strange))["observed"]["method"] == "estimated"

    async def final():
        return (await gate.record(known))["observed"]["method"] == "exclusive"

    await until(final, "the other one's observation")
    assert await gate.metric("joulegate_meter_up") == 1
    assert await gate.metric("joulegate_unmetered_requests_total") == 1


@pytest.mark.parametrize("secret", ["s3cret", None])
async def test_the_secret_is_sent(world, secret):
    seen = []

    class Listening(FakeMeter):
        async def _take(self, request):
            seen.append(request.headers.get("authorization"))
            return await super()._take(request)

    meter = await world.stack.enter_async_context(Listening())
    backend = await world.recorder()
    await world.gate(model("phi-3-mini", metered(backend, meter)), meter_secret=secret)
    await until(lambda: seen, "a batch")
    assert seen[0] == (secret and f"Bearer {secret}")


async def test_a_wrong_secret_is_like_no_meter(world):
    simulator = await world.simulator()
    meter = await world.meter(simulator, secret="right")
    gates = [
        await world.gate(model("phi-3-mini", metered(simulator, meter)), meter_secret=secret)
        for secret in ("right", "wrong")
    ]

    async def up(gate):
        return await gate.metric("joulegate_meter_up") == 1

    await until(lambda: up(gates[0]), "the meter to answer")
    assert not await up(gates[1])
    assert (await gates[1].ask(CHAT)).status == 200
