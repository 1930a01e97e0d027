"""`joulegate replay` on a decision log that a gateway wrote."""

import asyncio
import json
import random

from typer.testing import CliRunner

from calibration.cli import app
from gateway.config import LogConfig
from tests.integration.harness import model, until

SHORT = {"max_tokens": 20}


def replay(*arguments):
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


async def test_a_gateways_own_log_is_replayed_as_it_was(world, tmp_path):
    path = tmp_path / "decisions.jsonl"
    names = ("phi-3-mini", "mistral-7b", "falcon-7b")
    servers = [await world.simulator(name) for name in names]
    gate = await world.gate(
        *(model(*pair) for pair in zip(names, servers, strict=True)),
        log=LogConfig(decisions=str(path)),
    )
    rng = random.Random(4)
    for at in range(24):
        body = {
            "model": "auto" if at % 6 else "falcon-7b",
            "messages": [{"role": "user", "content": "word " * rng.randrange(1, 300)}],
            **(SHORT if at % 2 else {}),
        }
        weights = {f"x-joulegate-weight-{name}": str(rng.random()) for name in ("energy", "time")}
        weights["x-joulegate-weight-accuracy"] = str(10 * rng.random())
        assert (await gate.ask(body, weights)).status == 200
    await until(lambda: path.exists() and path.read_bytes().count(b"\n") == 24, "the log")

    done = await asyncio.to_thread(replay, path, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["lines"], found["requests"]) == ("log", 24, 20)
    assert found["left_out"] == [{"reason": "named its model (policy none)", "count": 4}]
    (group,) = found["profiles"]
    assert group["recorded_lengths"] == 20
    assert group["observed"]["seconds_n"] == 20
    (same,) = (one for one in group["savings"] if one["against"] == "as recorded")
    assert same["changed_share"]["value"] == same["joules_saved_per_request"]["value"] == 0.0
    answered = [json.loads(one) for one in path.read_text().splitlines()]
    chosen = [one["model"] for one in answered if one["requested"] == "auto"]
    shares = group["plans"][0]["shares"]
    assert {name: shares[name]["value"] * 20 for name in names} == {
        name: chosen.count(name) for name in names
    }

    done = await asyncio.to_thread(replay, path, "--json", "--preset", "energy", "--pinned")
    (group,) = json.loads(done.stdout)["profiles"]
    saved = next(one for one in group["savings"] if one["against"] == "as recorded")
    assert group["requests"] == 24
    assert saved["joules_saved_per_request"]["value"] > 0.0
