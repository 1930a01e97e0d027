"""API keys: who may ask, for what, and who sees what became of it."""

import json

import msgspec
import openai
import pytest

from gateway.config import LogConfig, PresetConfig, WeightsConfig
from gateway.service.request.routing_table import ModelNames
from gateway.structured import ConfigError
from tests.integration.harness import CHAT, ENERGY, HELLO, model, until
from tests.integration.keys import known
from tests.integration.operators import fetch, serving


@pytest.fixture
async def gate(world, ring):
    """Two models; phi-3-mini is the cheaper one, and nobody has a key yet."""
    cheap, good = await world.simulator(), await world.simulator("mistral-7b")
    return await world.gate(
        model("phi-3-mini", cheap), model("mistral-7b", good), keys=ring.config()
    )


async def test_without_a_key_nothing_is_told(gate):
    for method, path in (
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/route"),
        ("POST", "/v1/feedback"),
        ("POST", "/tokenize"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/phi-3-mini"),
        ("GET", "/v1/requests/req_1"),
        ("GET", "/v1/responses/resp_1"),
    ):
        got = await gate.ask(CHAT if method == "POST" else None, path=path, method=method)
        assert got.status == 401, path
        assert got.json["error"]["code"] == "missing_api_key"
        assert got.json["error"]["type"] == "invalid_request_error"
        assert got.headers["www-authenticate"] == "Bearer"
    assert (await gate.get("/")).json["models"] == []
    for path in ("/health", "/ready", "/metrics"):
        assert (await gate.get(path)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer jg-unknown"},
        {"authorization": "Bearer "},
        {"x-api-key": ""},
        {"x-api-key": "jg-unknown"},
        {"authorization": "Basic amctdW5rbm93bg==", "x-api-key": "x"},
    ],
)
async def test_what_is_no_key_is_refused_without_being_repeated(gate, headers):
    got = await gate.ask(CHAT, headers)
    assert got.status == 401
    assert got.json["error"]["code"] == "invalid_api_key"
    assert b"unknown" not in got.raw.replace(b"is not known", b"")


async def test_a_key_comes_as_bearer_or_as_x_api_key(gate, ring):
    headers = await known(gate, ring.add("search"))
    key = headers["authorization"].removeprefix("Bearer ")
    for sent in (headers, {"authorization": f"bearer  {key}"}, {"x-api-key": key}):
        assert (await gate.ask(CHAT, sent)).status == 200
    both = {"authorization": "Bearer sk-of-another-server", "x-api-key": key}
    assert (await gate.ask(CHAT, both)).status == 200


async def test_sdks_raise_what_they_raise_for_their_own_api(gate, ring):
    key = ring.add("search", models=["phi-3-mini"], presets=[])["authorization"].split()[1]
    await known(gate, {"x-api-key": key})
    async with gate.sdk() as stranger, gate.sdk(api_key=key) as mine:
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="auto", messages=HELLO)
        with pytest.raises(openai.PermissionDeniedError):
            await mine.chat.completions.create(model="auto", messages=HELLO)
        listed = [entry.id async for entry in mine.models.list()]
    assert listed == ["phi-3-mini"]


async def test_messages_errors_have_anthropics_shape(gate, ring):
    key = ring.add("search", models=["phi-3-mini"])["authorization"].split()[1]
    await known(gate, {"x-api-key": key})
    asked = {"model": "mistral-7b", "messages": HELLO, "max_tokens": 9}
    for sent, status, kind in (
        ({}, 401, "authentication_error"),
        ({"x-api-key": "jg-x"}, 401, "authentication_error"),
        ({"x-api-key": key}, 403, "permission_error"),
    ):
        got = await gate.ask(asked, sent, "/v1/messages")
        assert (got.status, got.json["type"]) == (status, "error")
        assert got.json["error"]["type"] == kind
    got = await gate.ask(asked | {"model": "phi-3-mini"}, {"x-api-key": key}, "/v1/messages")
    assert got.status == 200


async def test_what_a_key_may_not_use_neither_answers_nor_shows(gate, ring):
    headers = await known(gate, ring.add("search", models=["mistral-7b"], presets=["auto"]))
    # By energy the other one would be chosen.
    got = await gate.ask(CHAT, headers | ENERGY)
    assert (got.status, got.headers["x-joulegate-model"]) == (200, "mistral-7b")
    decided = (await gate.ask(CHAT, headers | ENERGY, "/v1/route")).json
    assert [one["model"] for one in decided["candidates"]] == ["mistral-7b"]
    assert decided["excluded"] == []
    for name in ("phi-3-mini", "auto:energy", "joulegate/auto:energy"):
        for path in ("/v1/chat/completions", "/v1/route"):
            got = await gate.ask(CHAT | {"model": name}, headers, path)
            assert got.status == 403
            assert got.json["error"]["code"] == "model_not_allowed"
        assert (await gate.get(f"/v1/models/{name}", headers)).status == 403
    assert (await gate.ask(CHAT | {"model": "gpt-4"}, headers)).status == 404
    listed = (await gate.get("/v1/models", headers)).json["data"]
    assert [entry["id"] for entry in listed] == ["mistral-7b", "auto"]
    assert (await gate.get("/", headers)).json["models"] == ["mistral-7b"]


async def test_a_keys_weights_are_what_auto_starts_from(gate, ring):
    cheap = await known(gate, ring.add("thrifty", weights={"energy": 1}))
    assert (await gate.ask(CHAT, cheap)).headers["x-joulegate-model"] == "phi-3-mini"
    decided = (await gate.ask(CHAT, cheap, "/v1/route")).json
    assert decided["weights"]["energy"] == 1
    sent = cheap | {"x-joulegate-weight-accuracy": "1"}
    assert (await gate.ask(CHAT, sent)).headers["x-joulegate-model"] == "mistral-7b"
    balanced = (await gate.ask(CHAT | {"model": "auto:balanced"}, cheap, "/v1/route")).json
    assert balanced["weights"]["accuracy"] == pytest.approx(1 / 3)


async def test_requests_and_feedback_are_a_tenants_own(world, ring, tmp_path):
    log = tmp_path / "decisions.jsonl"
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()),
        keys=ring.config(),
        log=LogConfig(decisions=str(log)),
    )
    mine, ours = ring.add("search"), ring.add("search")
    theirs = await known(gate, ring.add("ads"))
    # Both tenants use the same id: neither sees or replaces the other's.
    named = {"x-request-id": "both"}
    assert (await gate.ask(CHAT, mine | named)).status == 200
    assert (await gate.get("/v1/requests/both", theirs)).status == 404
    assert (await gate.ask(CHAT | {"model": "auto:energy"}, theirs | named)).status == 200
    kept = (await gate.get("/v1/requests/both", ours)).json
    assert (kept["tenant"], kept["requested"]) == ("search", "auto")
    assert kept["key_id"] == ring.entries[0].id
    kept = (await gate.get("/v1/requests/both", theirs)).json
    assert (kept["tenant"], kept["requested"]) == ("ads", "auto:energy")
    told = {"request_id": "both", "correct": False}
    assert (await gate.ask(told, theirs, "/v1/feedback")).json["known"]
    assert "feedback" not in (await gate.get("/v1/requests/both", mine)).json
    told = {"request_id": "none-of-mine", "correct": False}
    assert not (await gate.ask(told, theirs, "/v1/feedback")).json["known"]
    await until(lambda: log.exists() and log.read_text().count("none-of-mine"), "the log")
    words = [json.loads(line) for line in log.read_text().splitlines()]
    assert {one["feedback"]["tenant"] for one in words if set(one) == {"feedback"}} == {"ads"}


async def test_a_response_belongs_to_its_tenant(gate, ring):
    mine, theirs = ring.add("search"), ring.add("ads")
    await known(gate, theirs)
    ask = {"model": "phi-3-mini", "input": "Hello", "store": True}
    made = (await gate.ask(ask, mine, "/v1/responses")).json["id"]
    assert (await gate.get(f"/v1/responses/{made}", mine)).status == 200
    assert (await gate.get(f"/v1/responses/{made}", theirs)).status == 404
    more = ask | {"previous_response_id": made}
    assert (await gate.ask(more, theirs, "/v1/responses")).status == 404
    assert (await gate.ask(more, mine, "/v1/responses")).status == 200


async def test_a_revoked_key_is_refused_and_a_bad_file_locks_nobody_out(gate, ring):
    gone, stays = ring.add("search"), ring.add("search")
    await known(gate, stays)
    ring.entries[0] = msgspec.structs.replace(ring.entries[0], revoked="2026-01-01T00:00:00Z")
    ring.write()

    async def refused():
        return (await gate.get("/v1/models", gone)).status == 401

    await until(refused, "the key to be revoked")
    assert (await gate.get("/v1/models", stays)).status == 200
    for bad in ("keys: [", "keys: [{id: x}]\n", "keys: [{id: x, sha256: jg-secret, tenant: t}]\n"):
        before = await gate.metric("joulegate_key_reloads_total", result="refused")
        ring.path.write_text(bad)

        async def counted(before=before):
            now = await gate.metric("joulegate_key_reloads_total", result="refused")
            return now > before

        await until(counted, "the bad file to be refused")
        assert (await gate.get("/v1/models", stays)).status == 200


async def test_a_gateway_does_not_start_with_keys_that_name_what_is_not_there(world, ring):
    ring.add("search", models=["nobody"])
    with pytest.raises(ConfigError, match="nobody"):
        await world.gate(model("phi-3-mini", await world.simulator()), keys=ring.config())


async def test_another_configuration_must_have_what_keys_name(gate, ring):
    headers = await known(gate, ring.add("search", models=["mistral-7b"]))
    keys, config = gate.gateway.keys, gate.gateway.planner.names.config
    fewer = msgspec.structs.replace(config, models=config.models[:1])
    with pytest.raises(ConfigError, match="mistral-7b"):
        keys.check_config(fewer)
    other = msgspec.structs.replace(config, presets={"eco": PresetConfig(WeightsConfig(energy=1))})
    keys.check_config(other)
    keys.change_config(other, ModelNames(other))
    assert (await gate.ask(CHAT | {"model": "auto:eco"}, headers, "/v1/route")).status == 200


async def test_operators_see_every_tenants_records_and_clients_their_own(world, ring, tmp_path):
    simulator = await world.simulator()
    mine, theirs = ring.add("search"), ring.add("ads")
    operator = {"authorization": "Bearer operators"}
    more = {"keys": {"file": "keys.yaml"}, "admin": {"port": 0, "token": "operators"}}
    async with serving(tmp_path, [simulator.url], **more) as (clients, admin, _):
        told, _ = await fetch(
            clients, "/v1/chat/completions", CHAT, **mine, **{"x-request-id": "a"}
        )
        assert told == 200
        assert (await fetch(clients, "/v1/requests/a", **mine))[0] == 200
        assert (await fetch(clients, "/v1/requests/a", **theirs))[0] == 404
        assert (await fetch(clients, "/v1/requests/a"))[0] == 401
        assert (await fetch(admin, "/v1/requests/a", **operator))[1]["tenant"] == "search"
        assert (await fetch(admin, "/v1/requests/a", **mine))[0] == 401
