"""One backend drained by hand, and the operators' port that it is done on."""

import asyncio

import pytest

from gateway.surfaces_config import AdminConfig
from tests.integration.harness import CHAT, ENDLESS, STREAM, model, until
from tests.integration.operators import fetch, serving
from tests.integration.process import joulegate


async def command(*arguments):
    """Run a command to its end; its exit code and what it said on stderr."""
    async with joulegate(*arguments) as process:
        return await process.ended(), "\n".join(process.lines)


async def test_a_drained_backend_ends_what_it_runs_and_gets_nothing_new(world):
    slow, other = await world.simulator(speed=20.0), await world.simulator()
    gate = await world.gate(model("phi-3-mini", slow), admin=AdminConfig(port=1))
    drained = gate.backend(slow)
    running = [asyncio.create_task(gate.ask(STREAM | ENDLESS)) for _ in range(20)]
    await until(lambda: drained.inflight == 20, "all of them")
    got = await gate.ask({"backend": slow.url}, path="/admin/backends/drain")
    assert got.json == {
        "backend": drained.label,
        "models": ["phi-3-mini"],
        "state": "drained",
        "inflight": 20,
    }
    assert (await gate.ask()).status == 503
    assert (await gate.get("/ready")).status == 503
    assert await gate.metric("joulegate_backend_drained") == 1
    assert await gate.metric("joulegate_backend_up") == 0
    for answer in await asyncio.gather(*running):
        assert answer.status == 200
        assert answer.events[-1] == b"[DONE]"
    got = await gate.ask({"backend": drained.label}, path="/admin/backends/undrain")
    assert (got.json["state"], got.json["inflight"]) == ("up", 0)
    assert (await gate.ask()).status == 200
    unknown = await gate.ask({"backend": other.url}, path="/admin/backends/drain")
    assert unknown.status == 404
    assert drained.label in unknown.json["error"]["message"]


async def test_what_is_drained_goes_to_the_others(world):
    one, two = await world.simulator(), await world.simulator()
    gate = await world.gate(model("phi-3-mini", one, two), admin=AdminConfig(port=1))
    await gate.ask({"backend": one.url}, path="/admin/backends/drain")
    for _ in range(6):
        got = await gate.ask()
        assert got.headers["x-joulegate-backend"] == gate.backend(two).label
    # the last one that is left is kept in use, whatever it answers
    assert gate.backend(two).is_alone


async def test_the_command_and_the_two_ports(world, tmp_path):
    urls = [(await world.simulator()).url for _ in range(2)]
    async with serving(tmp_path, urls, "--workers", 2) as (clients, admin, process):
        label = urls[0].removeprefix("http://")
        code, said = await command("drain", label, "--config", tmp_path / "gateway.yaml")
        assert code == 2, said  # port 0 in the file is no address
        code, said = await command("drain", label, "--admin", admin, "--json")
        assert code == 0, said

        async def states():
            found = (await fetch(admin, "/admin/backends"))[1]["backends"]
            return [one["state"] for one in found] == ["drained", "up"]

        for _ in range(6):  # whichever worker answers
            await until(states, "both workers to know")
        for _ in range(6):
            status, _ = await fetch(clients, "/v1/chat/completions", CHAT)
            assert status == 200
        assert (await command("undrain", label, "--admin", admin))[0] == 0
        code, said = await command("drain", "nobody:1", "--admin", admin)
        assert code == 1
        assert "no backend 'nobody:1'" in said
        # each path on its own port, the probes on both
        for path in ("/metrics", "/load", "/admin/backends", "/v1/requests/x"):
            # however it is spelt: the router takes these for one
            for spelt in (path, f"/{path}", f"{path}/", path.replace("/", "//"), f"{path}%2f"):
                assert (await fetch(clients, spelt))[0] == 404, spelt
        spelt = "//admin/backends/drain"
        assert (await fetch(clients, spelt, {"backend": label}))[0] == 404
        assert (await fetch(admin, "/metrics"))[0] == 200
        for path in ("/v1/models", "/"):
            assert (await fetch(admin, path))[0] == 404, path
            assert (await fetch(clients, path))[0] == 200, path
        assert (await fetch(admin, "/v1/chat/completions", CHAT))[0] == 404
        said = (await fetch(admin, "/admin/nothing"))[1]["error"]["message"]
        assert "POST /admin/backends/drain" in said
        assert "/v1/chat" not in said
        listed = (await fetch(clients, "/"))[1]["paths"]
        assert {"/v1/chat/completions", "/ready"} <= set(listed)
        for path in listed:
            assert not path.startswith(("/metrics", "/load", "/admin", "/v1/requests")), path
        for address in (clients, admin):
            assert (await fetch(address, "/ready"))[0] == 200
            assert (await fetch(address, "/health"))[0] == 200
    assert not process.said("Traceback")


async def test_the_operators_token(world, tmp_path):
    simulator = await world.simulator()
    (tmp_path / "token").write_text("s3cret\n")
    admin_config = {"port": 0, "token_file": "token"}
    async with serving(tmp_path, [simulator.url], admin=admin_config) as (_, admin, process):
        for path in ("/metrics", "/health", "/ready"):
            assert (await fetch(admin, path))[0] == 200
        for headers in ({}, {"authorization": "Bearer s3cre"}, {"authorization": "s3cret"}):
            status, said = await fetch(admin, "/admin/backends", **headers)
            assert status == 401
            assert said["error"]["code"] == "invalid_token"
            for spelt in ("//admin/backends", "/admin/backends/", "/v1/requests/x"):
                assert (await fetch(admin, spelt, **headers))[0] == 401, spelt
        sent = {"authorization": "Bearer s3cret"}
        assert (await fetch(admin, "/admin/backends", **sent))[0] == 200
        assert (await fetch(admin, "/v1/requests/x", **sent))[0] == 404
        code, _ = await command("drain", simulator.url, "--admin", admin)
        assert code == 1
        token = ("--token-file", tmp_path / "token")
        assert (await command("drain", simulator.url, "--admin", admin, *token))[0] == 0
    assert not process.said("s3cre")


@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_operators_need_no_clients_key(world, ring, tmp_path, token):
    simulator, key = await world.simulator(), ring.add("search")
    admin_config = {"port": 0} | ({} if token is None else {"token": token})
    keys = {"file": str(ring.path)}
    async with serving(tmp_path, [simulator.url], admin=admin_config, keys=keys) as found:
        clients, admin, _ = found
        sent = {} if token is None else {"authorization": f"Bearer {token}"}
        asked = {"backend": simulator.url}
        status, said = await fetch(admin, "/admin/backends/drain", asked, **sent)
        assert (status, said["state"]) == (200, "drained")
        status, said = await fetch(admin, "/admin/backends/undrain", asked, **sent)
        assert (status, said["state"]) == (200, "up")
        assert (await fetch(clients, "/v1/chat/completions", CHAT))[0] == 401
        assert (await fetch(clients, "/v1/route", CHAT))[0] == 401
        assert (await fetch(clients, "/v1/route", CHAT, **key))[0] == 200
        if token is not None:
            assert (await fetch(admin, "/admin/backends/drain", asked, **key))[0] == 401


async def test_without_an_operators_port_there_is_nothing_to_drain_with(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    assert (await gate.get("/admin/backends")).status == 404
    assert (await gate.get("/metrics")).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "gateway.example.org"])
def test_beyond_loopback_a_token_is_needed(host):
    with pytest.raises(ValueError, match="token: has to be set"):
        AdminConfig(port=9466, host=host)
    AdminConfig(port=9466, host=host, token="x")
