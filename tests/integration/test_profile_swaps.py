"""A profile that changes ten times a second under load: nothing fails, no decision mixes two.

One profile has ten times the other's seconds and joules, so whose a number is shows in itself.
"""

import asyncio
import json
import signal
import time

import aiohttp
import pytest

from gateway import profile as profiles
from gateway.scheduling.cost import CostQuantity
from tests.integration.harness import HELLO, until
from tests.integration.process import serve
from tests.scaled_costs import scale_model

SWAPS = 100
EVERY_SECONDS = 0.1
RELOADS = "joulegate_profile_reloads_total"
REQUESTS_PER_SWAP = 20
ASKED = 20
QUIET = {"load_seconds": 3600.0, "idle_probe_seconds": 3600.0}
MODELS = ("phi-3-mini", "mistral-7b")


def write(path, factor):
    """Write the shipped profile with every cost so many times as high; return it."""
    shipped = profiles.load_profile(None).models
    models = {name: scale_model(one, factor) for name, one in shipped.items()}
    profiles.save_profile(models, path)
    return profiles.load_profile(path)


def costs(profile, name, tokens_in, tokens_out):
    """Seconds and joules that a profile predicts."""
    model = profile.get_model(name)
    seconds, joules = (
        model.seconds.to_cost_function(CostQuantity.SECONDS),
        model.joules.to_cost_function(CostQuantity.JOULES),
    )
    return seconds.predict_cost(tokens_in, tokens_out), joules.predict_cost(tokens_in, tokens_out)


def check(decision, by_version):
    """Every number of a decision is the version's that it names."""
    profile = by_version[decision["profile_version"]]
    tokens = decision["tokens"]
    assert tokens["output"] == ASKED
    assert {one["model"] for one in decision["candidates"]} == set(MODELS)
    for one in decision["candidates"]:
        predicted = one["predicted_seconds"], one["predicted_joules"]
        assert predicted == pytest.approx(costs(profile, one["model"], tokens["input"], ASKED))


async def until_adopted(served, count):
    """Two signals while one file is read are one reading, so the next swap waits for this one."""

    async def adopted():
        return await served.metric(RELOADS, result="adopted") >= count

    await until(adopted, f"swap {count}", 60)


async def test_two_thousand_requests_while_the_profile_is_swapped_a_hundred_times(world, tmp_path):
    backends = {name: (await world.simulator(name)).url for name in MODELS}
    path = tmp_path / "profile.json"
    spares = [tmp_path / f"{factor}.json" for factor in (1.0, 10.0)]
    found = [write(spare, float(spare.stem)) for spare in spares]
    by_version = {one.version: one for one in found}
    path.write_bytes(spares[0].read_bytes())
    log = tmp_path / "decisions.jsonl"
    async with (
        serve(
            tmp_path, backends, profile=path.name, log={"decisions": log.name}, health=QUIET
        ) as served,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        answers = []

        async def ask(number):
            body = {
                "model": "auto:energy" if number % 2 else "auto",
                "messages": HELLO,
                "max_tokens": ASKED,
                "ignore_eos": True,
                "joulegate": {"explain": True},
            }
            url = f"{served.url}/v1/chat/completions"
            async with http.post(url, json=body) as response:
                answers.append((response.status, response.headers, await response.json()))

        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for swap in range(SWAPS):
                fresh = tmp_path / "fresh.json"
                fresh.write_bytes(spares[(swap + 1) % 2].read_bytes())
                fresh.replace(path)
                served.process.send(signal.SIGHUP)
                for place in range(REQUESTS_PER_SWAP):
                    group.create_task(ask(swap * REQUESTS_PER_SWAP + place))
                    due += EVERY_SECONDS / REQUESTS_PER_SWAP
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await until_adopted(served, swap + 1)
        adopted = await served.metric(RELOADS, result="adopted")
        refused = await served.metric(RELOADS, result="refused")
        failed = await served.metric("joulegate_retries_total")

        def logged():
            return log.exists() and log.read_bytes().count(b"\n") == len(answers)

        await until(logged, "the log")

    total = SWAPS * REQUESTS_PER_SWAP
    assert [status for status, _, _ in answers] == [200] * total
    assert (refused, failed) == (0, 0)
    assert adopted >= SWAPS
    seen = dict.fromkeys(by_version, 0)
    for _, headers, answer in answers:
        decision = answer["joulegate"]
        check(decision, by_version)
        seen[decision["profile_version"]] += 1
        best = decision["candidates"][0]
        assert headers["x-joulegate-model"] == best["model"] == answer["model"]
        for name in ("seconds", "joules"):
            shown = float(headers[f"x-joulegate-predicted-{name}"])
            assert shown == pytest.approx(best[f"predicted_{name}"], rel=1e-5)
    assert min(seen.values()) > total / 10
    for line in log.read_text().splitlines():
        row = json.loads(line)
        check(row["decision"], by_version)
        live = row["compared"]["live"]
        assert live["profile_version"] == row["decision"]["profile_version"]
        usage = row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"]
        wanted = costs(by_version[live["profile_version"]], row["model"], *usage)
        assert (live["seconds"], live["joules"]) == pytest.approx(wanted)
