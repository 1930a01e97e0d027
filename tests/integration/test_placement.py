"""Placement and learnt lengths through a real gateway: where requests go, and what they teach."""

import asyncio
import json

import msgspec

from gateway import profile
from gateway.deciding_config import LearningConfig, PlacementConfig
from gateway.scheduling.cost import RegressionForm
from tests.integration.harness import CHAT, ENDLESS, model, until

SYSTEM = {"role": "system", "content": "You are a translator of menus."}
TIME = {"x-joulegate-weight-time": "1"}


def batching(path):
    """A profile whose costs know what a batch does: 1.2 times the time at 20 beside one."""
    shipped = profile.load_profile(None)
    found = {}
    for name, one in shipped.models.items():
        seconds, joules = one.seconds.coefficients, one.joules.coefficients
        found[name] = msgspec.structs.replace(
            one,
            seconds=profile.CostRegression(
                RegressionForm.LOAD, [*seconds, 0.0, seconds[2] / 100.0]
            ),
            joules=profile.CostRegression(
                RegressionForm.LOAD, [joules[0], joules[1], 0.1, 0.0, joules[2]]
            ),
        )
    profile.save_profile(found, path)
    return str(path)


async def started(world, tmp_path, **fields):
    servers = [await world.simulator() for _ in range(3)]
    gate = await world.gate(
        model("phi-3-mini", *servers), profile=batching(tmp_path / "p.json"), **fields
    )
    return gate, servers


async def hold(gate, servers, count, headers=None, **more):
    """Begin endless streams, one after the other; return each backend's load, and the tasks."""

    def loads():
        return [gate.backend(server).inflight for server in servers]

    tasks = []
    for number in range(count):
        body = CHAT | ENDLESS | {"stream": True} | more
        tasks.append(asyncio.create_task(gate.ask(body, headers)))
        await until(lambda wanted=number + 1: sum(loads()) == wanted, "the request to be sent")
    return loads(), tasks


async def ended(gate, tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: gate.idle, "the gateway to be idle")


async def test_energy_packs_and_time_spreads(world, tmp_path):
    gate, servers = await started(world, tmp_path)
    for headers, wanted in ((None, [6, 0, 0]), (TIME, [2, 2, 2])):
        found, tasks = await hold(gate, servers, 6, headers)
        assert found == wanted
        assert await gate.metric("joulegate_backends_idle") == found.count(0)
        await ended(gate, tasks)


async def test_a_concrete_name_is_placed_by_the_configs_weights(world, tmp_path):
    gate, servers = await started(world, tmp_path)
    found, tasks = await hold(gate, servers, 4, TIME, model="phi-3-mini")
    assert found == [4, 0, 0]
    await ended(gate, tasks)


async def test_the_modes_and_the_least_in_use(world, tmp_path):
    rules = PlacementConfig(mode="pack", min_backends=2)
    gate, servers = await started(world, tmp_path, placement=rules)
    found, tasks = await hold(gate, servers, 5, TIME)
    assert found[2] == 0
    assert all(found[:2])
    await ended(gate, tasks)


async def test_an_ejected_backend_is_left_and_the_rest_packs_on(world, tmp_path):
    gate, servers = await started(world, tmp_path)
    for _ in range(10_000):
        gate.backend(servers[0]).record_failure("a test")
    found, tasks = await hold(gate, servers, 4)
    assert found == [0, 4, 0]
    await ended(gate, tasks)


async def test_the_explanation_names_places_and_lengths(world, tmp_path):
    gate, servers = await started(world, tmp_path, reference_load=5.0)
    _, tasks = await hold(gate, servers, 3)
    got = await gate.ask(CHAT, path="/v1/route")
    assert got.json["reference_load"] == 5.0
    assert set(got.json["tokens"]) == {"input", "output", "output_p90", "source"}
    (one,) = got.json["candidates"]
    assert [place["why"] for place in one["places"]] == ["fullest", "emptiest"]
    assert one["backend"] == one["places"][0]["backend"] == gate.backend(servers[0]).label
    assert one["places"][0]["running"] == 3
    assert one["reference_joules"] < one["predicted_joules"]
    await ended(gate, tasks)


async def test_a_bound_steers_the_place(world, tmp_path):
    gate, servers = await started(world, tmp_path)
    _, tasks = await hold(gate, servers, 10)
    pinned = CHAT | {"max_tokens": 100, "min_tokens": 100}
    free = (await gate.ask(pinned, path="/v1/route")).json["candidates"][0]
    full, empty = free["places"]
    assert free["backend"] == full["backend"]
    between = 1e3 * (full["predicted_seconds"] + empty["predicted_seconds"]) / 2
    limit = {"x-joulegate-max-latency-ms": f"{between:.3f}"}
    got = (await gate.ask(pinned, limit, path="/v1/route")).json
    assert (got["feasible"], got["excluded"]) == (True, [])
    assert got["candidates"][0]["backend"] == empty["backend"]
    await ended(gate, tasks)


async def test_the_backlog_of_prompts_is_counted_and_given_back(world, tmp_path):
    gate, servers = await started(world, tmp_path)
    await gate.ask(CHAT)
    await gate.ask(CHAT | {"stream": True})
    assert [gate.backend(server).prompt_tokens for server in servers] == [0, 0, 0]


async def test_a_length_is_learnt_per_application_and_survives_a_restart(world, tmp_path):
    state = tmp_path / "learnt.json"
    fields = {"learning": LearningConfig(state=str(state))}
    body = CHAT | {"messages": [SYSTEM, *CHAT["messages"]], "model": "phi-3-mini"}
    gate, _ = await started(world, tmp_path, **fields)
    first = (await gate.ask(body, path="/v1/route")).json["tokens"]
    assert first["source"] == "profile"
    for _ in range(4):
        await gate.ask(body)
    other = CHAT | {"model": "phi-3-mini"}
    lengths = gate.gateway.planner.deciding.learnt.lengths
    seen = lambda: lengths.to_state()["models"]["phi-3-mini"]["lengths"][0]  # noqa: E731
    await until(lambda: seen() > 3.99, "all four to be learnt from")
    now = (await gate.ask(body, path="/v1/route")).json["tokens"]
    elsewhere = (await gate.ask(other, path="/v1/route")).json["tokens"]
    assert (now["source"], elsewhere["source"]) == ("application", "model")
    gate.gateway.planner.deciding.learnt.close()
    kept = state.read_text()
    assert SYSTEM["content"] not in kept
    assert set(json.loads(kept)) == {"version", "key", "lengths", "tokens"}
    again, _ = await started(world, tmp_path, **fields)
    assert (await again.ask(body, path="/v1/route")).json["tokens"] == now
