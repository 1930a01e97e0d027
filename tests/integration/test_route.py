"""The dry run: the decision of a request, without the request."""

import pytest

from tests.integration.harness import ACCURACY, CHAT, ENERGY, HELLO, spent

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES = [
    (CHAT, {}),
    (CHAT, ENERGY),
    (CHAT, ACCURACY | {"x-joulegate-policy": "hybrid"}),
    (CHAT | {"model": "auto:time", "max_tokens": 5}, {}),
    (CHAT | {"model": "falcon-7b"}, {}),
    (CHAT | {"joulegate": {"bounds": {"min_accuracy": 0.7}, "weights": {"time": 2}}}, {}),
    (CHAT | {"joulegate": {"bounds": {"min_accuracy": 0.99}}}, {}),
    (CHAT | {"messages": [{"role": "user", "content": "long " * 3000}]}, {}),
    ({"model": "auto", "prompt": ["Once upon", "a time"], "max_tokens": 3}, {}),
]


def steady(decision):
    """A decision without what is another each time, and without what only an answer has.

    Without a `load` form the lot decides between two replicas: that place is another each time too.
    """
    gone = ("id", "decision_us", "predicted", "observed")
    kept = {k: v for k, v in decision.items() if k not in gone}
    drawn = ("backend", "places")
    return kept | {
        "candidates": [
            {k: v for k, v in one.items() if one["model"] != "phi-3-mini" or k not in drawn}
            for one in decision["candidates"]
        ]
    }


@pytest.mark.parametrize(("body", "headers"), CASES)
async def test_it_is_the_decision_that_the_request_gets(fleet, gate, body, headers):
    engines = [spent(server) for server in fleet.all]
    dry = await gate.ask(body, headers, "/v1/route")
    assert dry.status == 200
    assert dry.json["id"] == dry.headers["x-request-id"]
    after = [spent(server) for server in fleet.all]
    assert after == engines
    path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
    got = await gate.ask(body, headers | {"x-joulegate-explain": "true"}, path)
    assert got.status == 200
    assert steady(dry.json) == steady(got.json["joulegate"])
    assert steady(dry.json) == steady((await gate.record(got))["decision"])
    assert got.headers["x-joulegate-model"] == dry.json["model"]


async def test_no_backend_is_called_and_nothing_is_recorded(fleet, gate):
    fleet.fail(fleet.all, "status", status=500)
    before = await gate.metric("joulegate_requests_total")
    dry = await gate.ask(path="/v1/route")
    assert (dry.status, len(dry.json["candidates"])) == (200, 3)
    assert all(server.faults.served["status"] == 0 for server in fleet.all)
    assert await gate.metric("joulegate_requests_total") == before
    assert (await gate.get(f"/v1/requests/{dry.json['id']}")).status == 404


async def test_it_says_why_nobody_can(gate):
    bounds = {"bounds": {"min_accuracy": 0.99}}
    dry = await gate.ask(CHAT | {"joulegate": bounds}, path="/v1/route")
    assert dry.json["feasible"] is False
    assert dry.json["model"] == "mistral-7b"
    assert len(dry.json["excluded"]) == 3
    got = await gate.ask(CHAT | {"joulegate": bounds | {"infeasible": "reject"}}, path="/v1/route")
    assert (got.status, got.json["error"]["code"]) == (422, "no_feasible_model")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        ({"model": ["auto"], "messages": HELLO}, 400, None),
        ({"model": "nope", "messages": HELLO}, 404, "model_not_found"),
        (CHAT | {"joulegate": {"policy": "random"}}, 400, None),
    ],
)
async def test_errors_are_those_of_a_request(gate, body, status, code):
    got = await gate.ask(body, path="/v1/route")
    again = await gate.ask(body)
    assert (got.status, got.json["error"]["code"]) == (status, code)
    assert got.json == again.json


async def test_bodies_of_responses_and_messages_are_told_apart(gate):
    say = [{"role": "user", "content": "Hello there"}]
    counted = {}
    for name, body in {
        "chat": {"messages": say},
        "messages": {"messages": say, "system": "Be brief, please, and kind.", "max_tokens": 5},
        "responses": {"input": "Hello there", "instructions": "Be brief, please, and kind."},
    }.items():
        got = await gate.ask({"model": "auto"} | body, path="/v1/route")
        assert got.status == 200, got.raw
        counted[name] = got.json["candidates"][0]["tokens"]["input"]
    assert counted["messages"] == counted["responses"] > counted["chat"]
