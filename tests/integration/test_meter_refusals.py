"""What `joulegate meter` refuses: strangers, bad input, options it cannot use."""

import io
import json
import os

import msgspec
import pytest

from backends.meter.protocol import (
    EVENTS_PATH,
    BackendRef,
    EventBatch,
    RequestBegin,
    RequestProgress,
)
from tests.integration.meters import SECRET, metering, of
from tests.integration.process import joulegate


async def test_only_who_knows_the_secret_may_post(world, tmp_path):
    simulator = await world.simulator()
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    async with metering(*of(simulator), "--secret-file", path, secret=SECRET) as (_, client):
        await client.post()
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": SECRET}):
            client._headers = headers
            status, body = await client.send(b"{}")
            assert status == 401
            assert json.loads(body)["error"]["code"] == "invalid_api_key"
        assert (await client.get("/metrics"))[0] == 200


async def test_the_secret_may_come_from_the_environment(world):
    simulator = await world.simulator()
    environ = {"JOULEGATE_METER_SECRET": SECRET}
    async with metering(*of(simulator), environ=environ) as (_, client):
        assert (await client.send(b"{}"))[0] == 401


@pytest.mark.parametrize("how", ["option", "config", "secret"])
async def test_beyond_loopback_it_starts_with_a_secret_or_where_told_to_do_without(
    world, tmp_path, how
):
    simulator = await world.simulator()
    config = tmp_path / "meter.yaml"
    ledger = f"ledgers: [{{source: simulator, url: '{simulator.url}'}}]\n"
    config.write_text(ledger + "allow_unauthenticated: true\n" * (how == "config"))
    environ = {"JOULEGATE_METER_SECRET": SECRET} if how == "secret" else {}
    more = ["--no-secret"] if how == "option" else []
    everywhere = ("--host", "0.0.0.0", "--port", "0")
    async with joulegate(
        "meter", "--config", config, *everywhere, *more, env=os.environ | environ
    ) as process:
        await process.says("metering on http://0.0.0.0")
        warned = any("whoever reaches 0.0.0.0" in line for line in process.lines)
        assert warned == (how != "secret")


async def test_bad_input_is_refused_with_a_message_and_harms_nobody(world):
    simulator = await world.simulator()
    async with metering(*of(simulator)) as (_, client):
        good = msgspec.json.encode(EventBatch("gw", [BackendRef("a")], []))
        for body in (
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b'{"gateway": 5, "backends": [], "events": []}',
            b'{"gateway": "g", "backends": [], "events": [["x", 1]]}',
            b'{"gateway": "g", "backends": [], "events": [["p", 1, 2, 1e999]]}',
            msgspec.json.encode(EventBatch("g", [], [RequestBegin(1, 0, 3, 10, 0)])),
            msgspec.json.encode(EventBatch("g", [], [RequestProgress(1, -1, 0)])),
        ):
            status, answer = await client.send(body)
            assert status == 400, (body, answer)
            assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
        status, answer = await client.send(io.BytesIO(b" " * (1 << 20) + good))
        assert status == 413
        assert json.loads(answer)["error"]["code"] == "body_too_large"
        assert (await client.get("/nowhere"))[0] == 404
        assert (await client.get(EVENTS_PATH))[0] == 405
        assert (await client.post()).observations == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--source", "nvidia"), 2, "nvidia"),
        (("--source", "simulator"), 2, "url"),
        (("--source", "simulator", "--url", "nonsense"), 2, "nonsense"),
        (("--source", "rapl", "--url", "http://a:1"), 2, "url"),
        (("--hz", "0"), 2, "hz"),
        (("--config", "none.yaml"), 2, "none.yaml"),
        (("--config", "none.yaml", "--device", "0"), 2, "--device"),
        (("--secret-file", "none.txt"), 2, "none.txt"),
        (("--log-level", "loud"), 2, "loud"),
        (("--host", "0.0.0.0"), 2, "--no-secret"),
        (("--host", "::"), 2, "JOULEGATE_METER_SECRET"),
    ],
)
async def test_options_that_cannot_be_used(arguments, code, said):
    async with joulegate("meter", *arguments) as process:
        assert await process.ended() == code
    assert any(said in line for line in process.lines), process.lines
    assert not any("Traceback" in line for line in process.lines)
