"""The simulated vLLM's Responses and Messages, directly and through the gateway."""

import json

import openai
import pytest

from tests.integration.harness import model, until
from tests.integration.typed import read_typed

TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.fixture(params=["direct", "gateway"])
async def sdk(request, world):
    simulator = await world.simulator()
    url, name = simulator.url, "phi-3-mini"
    if request.param == "gateway":
        gate = await world.gate(model(name, simulator, capabilities=("chat", "tools")))
        url, name = gate.url, "auto"
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as made:
        made.model = name
        yield made


async def test_a_response_and_its_stream_say_the_same(sdk):
    ask = {"model": sdk.model, "input": "Hello", "instructions": "Be brief.", "temperature": 0}
    whole = await sdk.responses.create(**ask)
    assert whole.output_text.startswith("[simulated")
    assert (whole.model, whole.status) == ("phi-3-mini", "completed")
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    assert whole.model_extra["simulated"]["energy_joules"] > 0
    text, numbers, last = "", [], None
    async for event in await sdk.responses.create(**ask, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        numbers.append(event.sequence_number)
        last = event
    assert text == whole.output_text
    assert numbers == list(range(len(numbers)))
    assert last.type == "response.completed"
    assert last.response.usage.output_tokens == whole.usage.output_tokens


async def test_a_limit_cuts_a_response_short(sdk):
    cut = await sdk.responses.create(model=sdk.model, input="Hello", max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.usage.output_tokens == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called_once_and_then_there_are_words(sdk, streamed):
    ask = {"model": sdk.model, "tools": [TOOL]}
    items = [{"role": "user", "content": "How is the weather?"}]
    if streamed:
        async for event in await sdk.responses.create(**ask, input=items, stream=True):
            last = event
        (call,) = last.response.output
    else:
        (call,) = (await sdk.responses.create(**ask, input=items)).output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments) == {"city": "simulated"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
    items += [call.to_dict(), result]
    assert (await sdk.responses.create(**ask, input=items)).output_text
    # A second question may have a tool again, but that one has been called.
    items.append({"role": "user", "content": "And now?"})
    assert (await sdk.responses.create(**ask, input=items)).output_text


async def test_a_required_tool_is_one_that_has_not_been_called(sdk):
    tools = [TOOL, {**TOOL, "name": "final_result"}]
    ask = {"model": sdk.model, "tools": tools, "tool_choice": "required"}
    items = [{"role": "user", "content": "How is the weather?"}]
    names = []
    for _ in range(2):
        (call,) = (await sdk.responses.create(**ask, input=items)).output
        names.append(call.name)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
        items += [call.to_dict(), result]
    assert names == ["get_weather", "final_result"]


async def test_a_json_schema_is_kept(sdk):
    form = {"type": "json_schema", "name": "person", "schema": SCHEMA, "strict": True}
    made = await sdk.responses.create(model=sdk.model, input="Who?", text={"format": form})
    assert isinstance(json.loads(made.output_text)["age"], int)


async def test_a_conversation_is_kept_and_told_apart(sdk):
    first = await sdk.responses.create(model=sdk.model, input="Hello")
    second = await sdk.responses.create(
        model=sdk.model, input="And?", previous_response_id=first.id
    )
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.id != first.id
    with pytest.raises(openai.NotFoundError, match="resp_0"):
        await sdk.responses.create(model=sdk.model, input="And?", previous_response_id="resp_0")


async def test_a_response_in_the_background_is_fetched_when_it_is_there(sdk):
    made = await sdk.responses.create(model=sdk.model, input="Hello", background=True)
    assert (made.status, made.output) == ("queued", [])

    async def is_made():
        return (await sdk.responses.retrieve(made.id)).status == "completed"

    await until(is_made, "the response")
    made = await sdk.responses.retrieve(made.id)
    assert made.output_text.startswith("[simulated")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await sdk.responses.cancel(made.id)


async def test_a_response_in_the_background_is_cancelled(world):
    slow = await world.simulator(speed=0.001)
    gate = await world.gate(model("phi-3-mini", slow))
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="x", max_retries=0) as sdk:
        made = await sdk.responses.create(model="auto", input="Hello", background=True)
        assert (await sdk.responses.cancel(made.id)).status == "cancelled"
        assert (await sdk.responses.retrieve(made.id)).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="synchronous"):
            await sdk.responses.cancel(made.id)


MESSAGES = {"max_tokens": 200, "messages": [{"role": "user", "content": "Hello"}]}
ANTHROPIC_TOOL = {"name": "get_weather", "input_schema": TOOL["parameters"]}


@pytest.fixture
async def gate(world):
    simulator = await world.simulator()
    return await world.gate(model("phi-3-mini", simulator, capabilities=("chat", "tools")))


async def test_a_message_and_its_stream_say_the_same(gate):
    ask = MESSAGES | {"model": "auto", "temperature": 0}
    whole = (await gate.ask(ask, path="/v1/messages")).json
    (block,) = whole["content"]
    assert block["text"].startswith("[simulated")
    assert whole["stop_reason"] in {"end_turn", "max_tokens"}
    events = read_typed((await gate.ask(ask | {"stream": True}, path="/v1/messages")).raw)
    deltas = [data["delta"]["text"] for name, data in events if name == "content_block_delta"]
    assert "".join(deltas) == block["text"]
    assert events[-2][1]["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    counted = await gate.ask(ask, path="/v1/messages/count_tokens")
    assert counted.json == {"input_tokens": whole["usage"]["input_tokens"]}


async def test_a_message_calls_a_tool_once(gate):
    ask = MESSAGES | {"model": "auto", "tools": [ANTHROPIC_TOOL]}
    whole = (await gate.ask(ask, path="/v1/messages")).json
    (block,) = whole["content"]
    assert (block["type"], block["name"], block["input"]) == (
        "tool_use",
        "get_weather",
        {"city": "simulated"},
    )
    assert whole["stop_reason"] == "tool_use"
    events = read_typed((await gate.ask(ask | {"stream": True}, path="/v1/messages")).raw)
    parts = [d["delta"]["partial_json"] for name, d in events if name == "content_block_delta"]
    assert json.loads("".join(parts)) == {"city": "simulated"}
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "Rain."}
    messages = [
        *MESSAGES["messages"],
        {"role": "assistant", "content": whole["content"]},
        {"role": "user", "content": [result]},
    ]
    after = (await gate.ask(ask | {"messages": messages}, path="/v1/messages")).json
    assert after["content"][0]["type"] == "text"


async def test_a_refusal_of_the_simulators_has_anthropics_shape(gate):
    got = await gate.ask({"model": "auto", "messages": []}, path="/v1/messages")
    assert (got.status, got.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("block", [[], None, "words", {"type": []}])
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/render"]
)
async def test_a_block_that_is_none_is_the_clients_fault(gate, path, block):
    ask = {"model": "auto", "max_tokens": 3, "messages": [{"role": "user", "content": [block]}]}
    if path != "/v1/messages":
        ask["model"] = "phi-3-mini"
    assert (await gate.ask(ask, path=path)).status == 400


async def test_a_tool_of_no_kind_is_not_called(gate):
    tools = [{"type": [], "name": "a", "input_schema": {}}]
    message = {"role": "user", "content": "Hello"}
    ask = {"model": "phi-3-mini", "max_tokens": 3, "messages": [message], "tools": tools}
    assert (await gate.ask(ask, path="/v1/messages/count_tokens")).status == 200
