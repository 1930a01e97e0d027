"""A gateway.yaml that changes while it is served: in force whole, or not at all."""

import asyncio
import contextlib
import os
import random
import signal

import aiohttp
import msgspec
import pytest
import yaml

from gateway.config import load_config
from tests.integration import process
from tests.integration.harness import CALM, CHAT, ENDLESS, STREAM, Gate, serve, until


def tree(*deployments, **more):
    """A configuration; a deployment is a name and its servers' addresses."""
    models = [
        {"name": name, "context": 4096, "backends": [{"url": url} for url in urls]}
        for name, *urls in deployments
    ]
    health = msgspec.to_builtins(CALM)
    return {"models": models, "health": health, "learning": {"enabled": False}} | more


class Reloaded(Gate):
    """A gateway whose file a test changes."""

    path = None

    async def change(self, found):
        """Write the file and have it read; tell whether it was taken into force."""
        text = found if isinstance(found, bytes) else yaml.safe_dump(found).encode()
        self.path.write_bytes(text)
        return await self.runtime.reloader.reload_config()

    async def reloads(self, result):
        return await self.metric("joulegate_config_reloads_total", result=result)


@contextlib.asynccontextmanager
async def changing(folder, found):
    """Serve a file that can be changed."""
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(found))
    async with serve(load_config(path), path) as gate:
        gate.__class__, gate.path = Reloaded, path
        yield gate


@pytest.fixture
async def two(world):
    """Two servers of one model."""
    return [await world.simulator(speed=50.0) for _ in range(2)]


async def test_backends_come_and_go_and_what_runs_ends_where_it_is(two, tmp_path):
    first, second = (server.url for server in two)
    async with changing(tmp_path, tree(("phi-3-mini", first))) as gate:
        kept = gate.backend(first)
        running = asyncio.create_task(gate.ask(STREAM | ENDLESS | {"max_tokens": 300}))
        await until(lambda: kept.inflight == 1, "a request in flight")
        assert await gate.change(tree(("phi-3-mini", first, second)))
        assert gate.backend(first) is kept
        assert {b.root for b in gate.gateway.backends} == {first, second}
        # the first leaves: what runs there ends there, whole, and what is new goes to the second
        assert await gate.change(tree(("phi-3-mini", second)))
        assert [b.root for b in gate.gateway.backends] == [second]
        for _ in range(3):
            got = await gate.ask()
            assert got.status == 200
            assert got.headers["x-joulegate-backend"] == second.removeprefix("http://")
        whole = await running
        assert whole.status == 200
        assert whole.events[-1] == b"[DONE]"
        assert kept.inflight == 0
        page = (await gate.get("/metrics")).raw.decode()
        shown = [line for line in page.splitlines() if line.startswith("joulegate_backend_up{")]
        assert len(shown) == 1
        assert kept.label not in shown[0]
        assert await gate.reloads("adopted") == 2


async def test_models_presets_weights_and_limits(world, tmp_path):
    phi, mistral = await world.simulator(), await world.simulator("mistral-7b")
    before = tree(("phi-3-mini", phi.url))
    async with changing(tmp_path, before) as gate:
        assert (await gate.ask(CHAT | {"model": "mistral-7b"})).status == 404
        after = tree(
            ("phi-3-mini", phi.url),
            ("mistral-7b", mistral.url),
            weights={"accuracy": 1},
            presets={"eco": {"weights": {"energy": 1}}},
            limits={"max_body_bytes": 4096},
        )
        assert await gate.change(after)
        listed = [entry["id"] for entry in (await gate.get("/v1/models")).json["data"]]
        assert {"mistral-7b", "auto:eco"} < set(listed)
        assert (await gate.ask()).json["model"] == "mistral-7b"
        assert (await gate.ask(CHAT | {"model": "auto:eco"})).json["model"] == "phi-3-mini"
        assert (await gate.ask(CHAT | {"user": "x" * 5000})).status == 413
        assert "mistral-7b" in (await gate.get("/")).json["models"]
        assert await gate.metric("joulegate_deployment_info", model="mistral-7b") == 1
        gate.gateway.accounting.flush()
        # and back again
        assert await gate.change(before)
        assert (await gate.ask(CHAT | {"model": "mistral-7b"})).status == 404
        assert (await gate.ask(CHAT | {"user": "x" * 5000})).status == 200
        assert await gate.metric("joulegate_deployment_info", model="mistral-7b") == 0


async def test_a_key_of_a_backend_changes_and_the_backend_stays(world, tmp_path):
    recorder = await world.recorder()
    found = tree(("phi-3-mini", recorder.url))
    async with changing(tmp_path, found) as gate:
        kept = gate.backend(recorder)
        found["models"][0]["backends"][0]["api_key"] = "fresh"
        assert await gate.change(found)
        assert gate.backend(recorder) is kept
        await gate.ask()
        assert recorder.seen[-1].headers["authorization"] == "Bearer fresh"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"models: [", "not YAML"),
        (b"", "must be a mapping"),
        ({"models": []}, "models"),
        ({"modles": []}, "did you mean 'models'"),
        ({"policy": "cheapest"}, "policy"),
        ({"timeouts": {"unary_seconds": 1}}, "a restart is needed to change timeouts"),
        ({"profile": "none.json"}, "none.json"),
    ],
)
async def test_a_bad_file_is_refused_whole(world, tmp_path, caplog, bad, said):
    simulator = await world.simulator()
    good = tree(("phi-3-mini", simulator.url))
    async with changing(tmp_path, good) as gate:
        names = gate.gateway.planner.names
        text = bad if isinstance(bad, bytes) else good | {"weights": {"time": 1}} | bad
        assert not await gate.change(text)
        assert said in caplog.text
        assert gate.gateway.planner.names is names
        assert (await gate.ask()).status == 200
        assert await gate.reloads("refused") == 1
        assert await gate.metric("joulegate_config_refused") == 1
        assert await gate.change(good)
        assert await gate.metric("joulegate_config_refused") == 0


async def test_mutated_files_under_load_cost_no_request(two, tmp_path):
    # With more of them: `make reload-storm`.
    files = int(os.environ.get("JOULEGATE_RELOADS", "40"))
    drawn = random.Random(17)
    urls = [server.url for server in two]
    good = yaml.safe_dump(tree(("phi-3-mini", *urls))).encode()
    async with changing(tmp_path, tree(("phi-3-mini", *urls))) as gate:
        ending, statuses = asyncio.Event(), []

        async def client():
            while not ending.is_set():
                statuses.append((await gate.ask(CHAT | {"max_tokens": 3})).status)

        clients = [asyncio.create_task(client()) for _ in range(4)]
        for _ in range(files):
            text = bytearray(good)
            for _ in range(drawn.randint(1, 4)):
                at = drawn.randrange(len(text))
                if drawn.random() < 0.5:
                    del text[at : at + drawn.randint(1, 40)]
                else:
                    text[at : at + 1] = bytes([drawn.randrange(256)])
            # One that only names another address is a good one, and nobody is there.
            with contextlib.suppress(Exception):
                gate.path.write_bytes(text)
                if {b.root_url for m in load_config(gate.path).models for b in m.backends} - {
                    *urls
                }:
                    continue
            await gate.change(bytes(text))
        assert await gate.change(good)
        ending.set()
        await asyncio.gather(*clients)
        assert set(statuses) == {200}
        assert await gate.reloads("refused") > 10


async def test_a_meter_that_leaves_settles_what_it_measured(world, tmp_path):
    simulator = await world.simulator(speed=20.0)
    meter = await world.meter(simulator)
    bare = tree(("phi-3-mini", simulator.url))
    with_meter = tree(("phi-3-mini", simulator.url))
    with_meter["models"][0]["backends"][0]["meter"] = meter.url
    async with changing(tmp_path, with_meter) as gate:
        await until(
            lambda: all(link.last_exchange_ok for link in gate.gateway.accounting.meters),
            "the meter",
        )
        running = asyncio.create_task(gate.ask(CHAT | ENDLESS | {"max_tokens": 60}))
        await until(lambda: gate.backend(simulator).inflight == 1, "a request in flight")
        assert await gate.change(bare)
        assert gate.backend(simulator).meter is None
        served = await running
        shown = await gate.settled(served.headers["x-request-id"])
        assert shown["observed"]["method"] in {"exclusive", "apportioned"}
        await until(lambda: gate.gateway.accounting.meters == (), "the meter to be let go")
        assert await gate.change(with_meter)
        assert len(gate.gateway.accounting.meters) == 1


async def test_a_changed_file_and_sighup_reach_every_worker(two, tmp_path):
    first, second = (server.url for server in two)
    async with process.serve(tmp_path, {"phi-3-mini": first}, "--workers", 2) as served:
        path = tmp_path / "gateway.yaml"

        def in_force(count):
            # SIGHUP has each worker read the profile too, which says that it is in force likewise.
            said = [line for line in served.process.lines if "is in force" in line]
            return sum(" configuration " in line for line in said) == count

        def told(model):
            models = [{"name": model, "context": 4096, "backends": [{"url": second}]}]
            return yaml.safe_dump({"models": models})

        await until(
            lambda: sum("startup complete" in line for line in served.process.lines) == 2,
            "both workers",
            seconds=60,
        )
        fresh = path.with_suffix(".new")
        fresh.write_text(told("mistral-7b"))
        fresh.rename(path)
        await until(lambda: in_force(2), "both workers to have read it")
        served.process.send(signal.SIGHUP)
        await until(lambda: in_force(4), "both workers to have read it again")
        assert sum("startup complete" in line for line in served.process.lines) == 2
        async with aiohttp.ClientSession(headers={"connection": "close"}) as http:
            for _ in range(6):
                async with http.get(f"{served.url}/v1/models") as response:
                    assert (await response.json())["data"][0]["id"] == "mistral-7b"
    assert not served.process.said("Traceback")
