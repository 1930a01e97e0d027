"""POST /v1/messages and /count_tokens: as chat is, with errors in Anthropic's shape."""

import pytest
from aiohttp import web

from tests.integration.harness import model
from tests.integration.scripted import stream
from tests.integration.typed import message, message_events, read_typed, typed

PATH = "/v1/messages"
ASK = {"model": "auto", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
KEYS = {"x-api-key": "sk-ant-1", "anthropic-version": "2023-06-01"}


async def answering(request, seen):
    asked = seen.json
    if seen.path.endswith("/count_tokens"):
        return web.json_response({"input_tokens": 12})
    if asked.get("stream"):
        return await stream(request, *message_events(asked))
    return web.json_response(message(asked))


def breaking(*pieces, whole=True):
    async def answer(request, seen):
        return await stream(request, *message_events(seen.json)[:3], *pieces, whole=whole)

    return answer


async def test_unary_is_decided_renamed_and_recorded(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    got = await gate.ask(ASK | {"top_k": 5, "system": "Be brief."}, KEYS, path=PATH)
    assert got.status == 200
    assert got.json["model"] == "phi-3-mini"
    assert got.headers["request-id"] == got.headers["x-request-id"]
    (seen,) = backend.seen
    assert (seen.path, seen.json["model"], seen.json["top_k"]) == (PATH, "microsoft/phi", 5)
    assert not {"x-api-key", "anthropic-version"} & {name.lower() for name in seen.headers}
    record = await gate.record(got)
    assert record["kind"] == "messages"
    assert record["asked_tokens"] == 50
    assert record["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 2}
    assert record["observed"]["joules"] > 0


async def test_the_stream_is_relayed_whole(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend, served_name="microsoft/phi"))
    headers = {"x-joulegate-explain": "true", "x-joulegate-impact": "true"}
    got = await gate.ask(ASK | {"stream": True}, headers, path=PATH)
    events = read_typed(got.raw)
    wanted = read_typed(b"".join(message_events(backend.seen[0].json)))
    assert [name for name, _ in events] == [name for name, _ in wanted]
    assert events[0][1]["message"]["model"] == "phi-3-mini"
    assert events[-2][1]["usage"]["energy"]["joules"] > 0
    assert events[-1][1]["joulegate"]["model"] == "phi-3-mini"
    record = await gate.record(got)
    assert record["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 2}


@pytest.mark.parametrize(
    "answer",
    [
        breaking(),
        breaking(whole=False),
        breaking(typed("error", error={"type": "internal_error", "message": "died"})),
        breaking(typed("message_stop")),
        breaking(b"data: [DONE]\n\n"),
        breaking(typed("message_delta", delta={"stop_reason": None}), typed("message_stop")),
    ],
    ids=["ends", "cut", "error", "no reason", "done", "given up"],
)
async def test_a_stream_that_breaks_ends_with_anthropics_error(world, answer):
    gate = await world.gate(model("phi-3-mini", await world.recorder(answer)))
    got = await gate.ask(ASK | {"stream": True}, path=PATH)
    name, last = read_typed(got.raw)[-1]
    assert (name, last["type"], last["error"]["type"]) == ("error", "error", "api_error")
    assert last["request_id"] == got.headers["x-request-id"]
    assert b"message_stop" not in got.raw
    assert got.error is not None


async def test_a_message_that_vllm_gave_up_is_another_backends_to_answer(world):
    async def giving_up(_, seen):
        return web.json_response(message(seen.json, "Half an", stop_reason=None))

    bad, good = await world.recorder(giving_up), await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", bad), model("mistral-7b", good))
    got = await gate.ask(ASK, {"x-joulegate-weight-energy": "1"}, path=PATH)
    assert (got.status, got.json["stop_reason"]) == (200, "end_turn")
    assert (len(bad.seen), len(good.seen)) == (1, 1)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_finished_message_lacks_its_last_event_alone(world, whole):
    ending = message_events({"model": "phi-3-mini"})[-3:-1]
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(breaking(*ending, whole=whole)))
    )
    got = await gate.ask(ASK | {"stream": True}, {"x-joulegate-explain": "true"}, path=PATH)
    name, last = read_typed(got.raw)[-1]
    assert name == ("message_stop" if whole else "error")
    assert (got.error is None) == ("joulegate" in last) == whole


async def test_a_stream_that_fails_before_content_is_another_backends_to_answer(world):
    async def failing(request, seen):
        error = typed("error", error={"type": "internal_error", "message": "no"})
        return await stream(request, *message_events(seen.json)[:2], error)

    bad, good = await world.recorder(failing), await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", bad), model("mistral-7b", good))
    got = await gate.ask(ASK | {"stream": True}, {"x-joulegate-weight-energy": "1"}, path=PATH)
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert read_typed(got.raw)[-1][0] == "message_stop"


@pytest.mark.parametrize(
    ("body", "method", "status", "kind"),
    [
        (b"{", "POST", 400, "invalid_request_error"),
        (ASK | {"model": "nobody"}, "POST", 404, "not_found_error"),
        (None, "GET", 405, "invalid_request_error"),
        ({"model": 7, "messages": []}, "POST", 400, "invalid_request_error"),
    ],
)
async def test_refusals_have_anthropics_shape(world, body, method, status, kind):
    gate = await world.gate(model("phi-3-mini", await world.recorder(answering)))
    for path in (PATH, f"{PATH}/count_tokens"):
        got = await gate.ask(body, path=path, method=method)
        assert (got.status, got.json["type"], got.json["error"]["type"]) == (status, "error", kind)
        assert got.json["error"]["message"]
        assert got.json["request_id"] == got.headers["request-id"]


async def test_vllms_refusal_and_lost_backends_have_anthropics_shape(world):
    async def refusing(_, __):
        error = {"type": "BadRequestError", "message": "max_tokens must be positive"}
        return web.json_response({"type": "error", "error": error}, status=400)

    backend = await world.recorder(refusing)
    gate = await world.gate(model("phi-3-mini", backend))
    got = await gate.ask(ASK, path=PATH)
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")
    assert got.json["error"]["message"] == "max_tokens must be positive"
    for _ in range(3):
        gate.backend(backend).record_failure("test")
    await backend.__aexit__()
    got = await gate.ask(ASK, path=PATH)
    assert (got.status, got.json["error"]["type"]) == (503, "overloaded_error")
    assert got.headers["x-should-retry"] == "false"


async def test_tokens_are_counted_by_the_model_that_would_answer_and_cost_nothing(world):
    backend = await world.recorder(answering)
    gate = await world.gate(model("phi-3-mini", backend))
    asked = {"model": "auto", "messages": ASK["messages"]}
    got = await gate.ask(asked, KEYS, path=f"{PATH}/count_tokens")
    assert got.json == {"input_tokens": 12}
    record = await gate.record(got)
    assert record["kind"] == "count_tokens"
    assert record["observed"]["joules"] is None
    assert await gate.metric("joulegate_tokens_total") == 0


async def test_tools_that_may_not_be_called_need_nothing(world):
    gate = await world.gate(
        model("phi-3-mini", await world.recorder(answering), capabilities=("chat",))
    )
    tool = {"name": "find", "input_schema": {"type": "object"}}
    for choice, status in (({"type": "none"}, 200), ({"type": "auto"}, 400), (None, 400), (1, 400)):
        got = await gate.ask(ASK | {"tools": [tool], "tool_choice": choice}, path=PATH)
        assert got.status == status, choice
