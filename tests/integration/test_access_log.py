"""The access log: a line for each request, and nothing in it that is a secret."""

import json

from gateway.config import LogConfig
from tests.integration.harness import CHAT, STREAM, model, until

SECRET = "a-planted-secret-9f3c"
FIELDS = {
    "at", "id", "client", "key_id", "tenant", "kind", "requested", "model", "backend", "stream",
    "code", "attempts", "seconds", "ttft_seconds", "prompt_tokens", "completion_tokens", "joules",
    "method",
}  # fmt: skip


async def test_each_request_has_a_line_and_no_line_a_secret(world, ring, tmp_path):
    key = ring.add("team-a")
    path = tmp_path / "access.jsonl"
    gate = await world.gate(
        model("phi-3-mini", await world.simulator()),
        log=LogConfig(access=str(path)),
        keys=ring.config(),
    )
    asked = [
        (STREAM | {"messages": [{"role": "user", "content": SECRET}]}, key),
        (CHAT | {"model": SECRET}, key),
        (CHAT | {"user": SECRET}, {"authorization": f"Bearer {SECRET}"}),
        (f'{{"model": "auto", "messages": {SECRET}'.encode(), key),
        (CHAT, key | {"x-joulegate-policy": SECRET, "x-forwarded-for": SECRET}),
    ]
    statuses = [(await gate.ask(body, headers)).status for body, headers in asked]
    assert statuses == [200, 404, 401, 400, 400]
    await until(lambda: path.exists() and len(path.read_text().splitlines()) == 5, "the lines")
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["code"] for line in lines] == statuses
    assert all(set(line) == FIELDS for line in lines)
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert [line["tenant"] for line in lines] == ["team-a", "team-a", None, "team-a", "team-a"]
    assert lines[0]["key_id"] == ring.entries[0].id
    assert lines[0]["joules"] > 0
    assert (lines[0]["attempts"], lines[1]["attempts"]) == (1, 0)
    assert SECRET not in text
    assert key["authorization"].removeprefix("Bearer ") not in text


async def test_without_one_no_address_is_kept(world):
    gate = await world.gate(model("phi-3-mini", await world.simulator()))
    await gate.ask()
    assert gate.gateway.accounting.access_log is None
