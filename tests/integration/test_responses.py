"""POST /v1/responses: decided, relayed, failed over, metered and kept with its backend."""

import openai
import pytest
from aiohttp import web

from tests.integration.harness import model
from tests.integration.scripted import stream
from tests.integration.typed import read_typed, response, response_events, typed

PATH = "/v1/responses"
ASK = {"model": "auto", "input": "Hello there"}


async def answering(request, seen):
    asked = seen.json
    if asked.get("stream"):
        return await stream(request, *response_events(asked))
    return web.json_response(response(asked))


def breaking(*pieces, whole=True):
    """A backend whose streams end after these of the proper events' number, and then `pieces`."""

    async def answer(request, seen):
        return await stream(request, *response_events(seen.json)[:5], *pieces, whole=whole)

    return answer


async def test_unary_is_decided_renamed_and_recorded(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    got = await gate.ask(ASK | {"instructions": "Be brief.", "new_member": [1]}, path=PATH)
    assert got.status == 200
    assert got.json["model"] == "phi-3-mini"
    assert got.headers["x-joulegate-model"] == "phi-3-mini"
    (seen,) = backend.seen
    assert seen.path == PATH
    assert seen.json["model"] == "microsoft/phi"
    assert seen.json["new_member"] == [1]
    assert "stream_options" not in seen.json
    record = await gate.record(got)
    assert record["kind"] == "responses"
    assert record["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 2}
    assert record["observed"]["joules"] > 0
    assert await gate.metric("joulegate_tokens_total", type="completion") == 3


async def test_the_stream_is_relayed_whole_and_ends_with_its_last_event(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    got = await gate.ask(ASK | {"stream": True}, {"x-joulegate-explain": "true"}, path=PATH)
    events = read_typed(got.raw)
    assert [name for name, _ in events] == [
        name for name, _ in read_typed(b"".join(response_events(backend.seen[0].json)))
    ]
    assert all(name == data["type"] for name, data in events)
    assert b"[DONE]" not in got.raw
    last = events[-1][1]["response"]
    assert last["model"] == "phi-3-mini"
    assert events[0][1]["response"]["model"] == "phi-3-mini"
    assert last["joulegate"]["model"] == "phi-3-mini"
    record = await gate.record(got)
    assert record["usage"]["completion_tokens"] == 3
    assert record["observed"]["ttft_seconds"] > 0


async def test_impact_and_explanation_stand_in_the_response(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend))
    headers = {"x-joulegate-explain": "true", "x-joulegate-impact": "true"}
    whole = (await gate.ask(ASK, headers, path=PATH)).json
    got = await gate.ask(ASK | {"stream": True}, headers, path=PATH)
    streamed = read_typed(got.raw)[-1][1]["response"]
    for told in (whole, streamed):
        assert told["usage"]["energy"]["joules"] > 0
        assert told["usage"]["input_tokens"] == 7
        assert told["joulegate"]["candidates"]


@pytest.mark.parametrize("status", ["cancelled", "failed"])
async def test_a_response_that_vllm_gave_up_is_another_backends_to_answer(world, status):
    async def giving_up(_, seen):
        return web.json_response(response(seen.json, "Half an", status))

    bad, good = await world.recorder(giving_up), await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", bad), model("mistral-7b", good))
    got = await gate.ask(ASK, {"x-joulegate-weight-energy": "1"}, path=PATH)
    assert (got.status, got.json["status"]) == (200, "completed")
    assert (len(bad.seen), len(good.seen)) == (1, 1)


@pytest.mark.parametrize("asked", [ASK, ASK | {"stream": True}])
async def test_a_failure_before_content_is_another_backends_to_answer(world, asked):
    async def failing(request, seen):
        if seen.json.get("stream"):
            events = response_events(seen.json)[:4]
            failed = response(seen.json, "", "failed", error={"code": "server_error"})
            return await stream(request, *events, typed("response.failed", response=failed))
        return web.json_response({"error": {"message": "no", "code": 500}}, status=500)

    bad, good = await world.recorder(failing), await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", bad), model("mistral-7b", good))
    got = await gate.ask(asked, {"x-joulegate-weight-energy": "1"}, path=PATH)
    assert got.status == 200
    assert got.headers["x-joulegate-model"] == "mistral-7b"
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert b"failed" not in got.raw


@pytest.mark.parametrize(
    "answer",
    [
        breaking(),
        breaking(whole=False),
        breaking(typed("response.failed", response={"error": {"message": "died"}})),
        breaking(typed("error", message="died", code="x", param=None, sequence_number=6)),
        breaking(b'data: {"error":{"message":"died","code":500}}\n\n'),
        breaking(b"data: [DONE]\n\n"),
        breaking(b"data: nonsense\n\n"),
        breaking(typed("response.completed", response={"status": "cancelled", "output": []})),
        breaking(typed("response.completed")),
    ],
    ids=["ends", "cut", "failed", "error", "chat's error", "done", "nonsense", "given up", "bare"],
)
async def test_a_stream_that_breaks_ends_with_the_apis_own_error(world, answer):
    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask(ASK | {"stream": True}, path=PATH)
    name, last = read_typed(got.raw)[-1]
    assert (name, last["type"], last["code"]) == ("error", "error", "stream_interrupted")
    assert last["sequence_number"] >= 5
    assert last["error"]["message"] == last["message"]
    assert b"response.completed" not in got.raw
    assert b"response.failed" not in got.raw
    assert got.error is not None  # the body is left without its end
    async with gate.sdk() as sdk:
        with pytest.raises(openai.APIError, match="broke off"):
            async for _ in await sdk.responses.create(**ASK, stream=True):
                pass


async def test_a_response_is_gone_on_from_where_it_was_made(world):
    backends = [await world.recorder(answering) for _ in range(3)]
    models = (model("phi-3-mini", *backends[:2]), model("mistral-7b", backends[2]))
    gate = await world.gate(*models, response_id_secret="a secret of theirs")
    other = await world.gate(*models, response_id_secret="a secret of theirs")
    first = (await gate.ask(ASK, path=PATH)).json["id"]
    (made_by,) = [backend for backend in backends if backend.seen]
    headers = {"x-joulegate-weight-energy": "1"}
    for asked in (gate, other, gate, other):
        got = await asked.ask(ASK | {"previous_response_id": first}, headers, path=PATH)
        assert got.status == 200
        assert made_by.seen[-1].json["previous_response_id"] == first
    assert sum(len(backend.seen) for backend in backends) == len(made_by.seen) == 5
    record = await other.record(got)
    assert (record["requested"], record["model"]) == ("auto", got.headers["x-joulegate-model"])


async def test_an_id_that_was_not_made_here_is_a_clear_404(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend), response_id_secret="one")
    other = await world.gate(model("phi-3-mini", backend), response_id_secret="two")
    made = (await gate.ask(ASK, path=PATH)).json["id"]
    backend.seen.clear()
    last = "0" if made[30] != "0" else "1"
    for gateway, told in (
        (gate, "resp_0123456789abcdef0123456789abcdef"),
        (gate, made[:30] + last + made[31:]),
        (gate, made + "0"),
        (other, made),
    ):
        got = await gateway.ask(ASK | {"previous_response_id": told}, path=PATH)
        assert got.status == 404
        assert got.json["error"]["code"] == "response_not_found"
        assert got.json["error"]["param"] == "previous_response_id"
    assert not backend.seen


async def test_another_model_cannot_go_on_from_a_response(world):
    small, large = await world.recorder(answering), await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", small), model("mistral-7b", large))
    made = (await gate.ask(ASK | {"model": "mistral-7b"}, path=PATH)).json["id"]
    asked = ASK | {"model": "phi-3-mini", "previous_response_id": made}
    got = await gate.ask(asked, path=PATH)
    assert got.status == 404
    assert "'phi-3-mini' cannot go on" in got.json["error"]["message"]
    assert not small.seen


async def test_what_vllm_no_longer_keeps_is_its_own_404(world):
    async def forgetful(request, seen):
        if "previous_response_id" not in seen.json:
            return await answering(request, seen)
        told = f"Response with id '{seen.json['previous_response_id']}' not found."
        error = {"message": told, "type": "invalid_request_error", "param": "response_id"}
        return web.json_response({"error": {**error, "code": 404}}, status=404)

    backend = await world.recorder(forgetful)
    gate = await world.gate(model("phi-3-mini", backend))
    made = (await gate.ask(ASK, path=PATH)).json["id"]
    got = await gate.ask(ASK | {"previous_response_id": made}, path=PATH)
    assert (got.status, got.json["error"]["code"]) == (404, "response_not_found")
    assert not gate.backend(backend).is_ejected


async def test_tools_and_limits_are_read(world):
    backend = await world.recorder(answering)
    gate = await world.gate(
        model("phi-3-mini", backend, capabilities=("chat",)),
        model("mistral-7b", await world.recorder(answering), capabilities=("chat", "tools")),
    )
    tool = {"type": "function", "name": "find", "parameters": {"type": "object"}}
    call = {"type": "function_call", "name": "find", "arguments": "{}", "call_id": "1"}
    result = {"type": "function_call_output", "call_id": "1", "output": "found"}
    for asked in (ASK | {"tools": [tool]}, ASK | {"input": [call, result]}):
        got = await gate.ask(asked | {"max_output_tokens": 5}, path=PATH)
        assert got.headers["x-joulegate-model"] == "mistral-7b"
        assert (await gate.record(got))["asked_tokens"] == 5


async def test_tools_that_may_not_be_called_need_nothing(world):
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answering), capabilities=("chat",))
    )
    tool = {"type": "function", "name": "find", "parameters": {"type": "object"}}
    for choice, status in (("none", 200), ("auto", 400), (None, 400), ({"type": "none"}, 400)):
        got = await gate.ask(ASK | {"tools": [tool], "tool_choice": choice}, path=PATH)
        assert got.status == status, choice
