"""Responses, Messages and vLLM's other endpoints through the gateway, answered by real vLLM."""

import httpx
import openai
import pytest

from tests.e2e.fleet import FLEET, TOOLS
from tests.integration.typed import read_typed
from tests.integration.vllm_paths import VLLM_PATHS

ASK = {"input": "Hello", "max_output_tokens": 8, "extra_body": {"ignore_eos": True}}
MESSAGE = {"max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
TOOL = {
    "type": "function",
    "name": "switch",
    "parameters": {
        "type": "object",
        "properties": {"state": {"enum": ["on", "off"]}},
        "required": ["state"],
        "additionalProperties": False,
    },
}


@pytest.fixture
async def http(gateway):
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as made:
        yield made


@pytest.mark.parametrize("asked", ["auto", "auto:energy", *FLEET])
async def test_a_response(client, http, asked):
    raw = await client.responses.with_raw_response.create(model=asked, **ASK)
    made = raw.parse()
    assert made.model == raw.headers["x-joulegate-model"]
    assert made.model == (asked if asked in FLEET else made.model)
    assert made.usage.input_tokens > 0
    assert made.usage.output_tokens > 0
    record = (await http.get(f"/v1/requests/{raw.headers['x-request-id']}")).json()
    assert record["kind"] == "responses"
    assert record["usage"]["completion_tokens"] == made.usage.output_tokens


async def test_a_streamed_response(client):
    kinds, last = [], None
    async for event in await client.responses.create(model="auto", stream=True, **ASK):
        kinds.append(event.type)
        last = event
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"
    assert last.response.model in FLEET
    assert last.response.usage.output_tokens > 0


async def test_a_response_is_gone_on_from_and_fetched(client):
    first = await client.responses.create(model="auto", store=True, **ASK)
    second = await client.responses.create(
        model="auto", previous_response_id=first.id, store=True, **ASK
    )
    assert second.model == first.model
    assert second.usage.input_tokens > first.usage.input_tokens
    assert (await client.responses.retrieve(second.id)).id == second.id
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await client.responses.cancel(second.id)
    for wrong in ("resp_1", first.id[:-1] + ("0" if first.id[-1] != "0" else "1")):
        with pytest.raises(openai.NotFoundError, match="made here"):
            await client.responses.create(model="auto", previous_response_id=wrong, **ASK)


async def test_a_tool_comes_through_as_the_backend_calls_it(client, backends):
    choice = {"type": "function", "name": "switch"}
    ask = {"input": "Turn it on", "tools": [TOOL], "tool_choice": choice, "temperature": 0}
    made = await client.responses.create(model="auto", max_output_tokens=100, **ask)
    assert made.model == TOOLS
    url = f"{backends[TOOLS].url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="unused") as sdk:
        direct = await sdk.responses.create(model=TOOLS, max_output_tokens=100, **ask)
    assert [item.type for item in made.output] == [item.type for item in direct.output]
    assert [getattr(item, "name", None) for item in made.output] == [
        getattr(item, "name", None) for item in direct.output
    ]


async def test_a_refused_response_has_openais_shape(client):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="phi-3-mini", input=[{"type": "message"}])
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("asked", ["auto", *FLEET])
async def test_a_message_and_its_stream(http, asked):
    ask = MESSAGE | {"model": asked}
    headers = {"x-api-key": "unused", "anthropic-version": "2023-06-01"}
    got = await http.post("/v1/messages", json=ask, headers=headers)
    assert got.status_code == 200, got.text
    made = got.json()
    assert made["model"] == got.headers["x-joulegate-model"]
    assert made["content"]
    assert made["usage"]["output_tokens"] > 0
    got = await http.post("/v1/messages", json=ask | {"stream": True}, headers=headers)
    events = read_typed(got.content)
    assert events[0][1]["message"]["model"] == got.headers["x-joulegate-model"]
    assert events[-1][0] == "message_stop"
    record = (await http.get(f"/v1/requests/{got.headers['x-request-id']}")).json()
    assert record["usage"]["completion_tokens"] > 0
    counted = await http.post("/v1/messages/count_tokens", json=ask, headers=headers)
    assert counted.json()["input_tokens"] > 0


async def test_a_refused_message_has_anthropics_shape(http):
    got = await http.post("/v1/messages", json=MESSAGE | {"model": "phi-3-mini", "max_tokens": 0})
    assert got.status_code == 400
    assert got.json()["type"] == "error"
    assert got.json()["error"]["type"] == "invalid_request_error"


async def test_tokens_are_made_and_unmade(http):
    for name in FLEET:
        asked = {"model": name, "prompt": "Hello there"}
        made = (await http.post("/tokenize", json=asked)).json()
        back = await http.post("/detokenize", json={"model": name, "tokens": made["tokens"]})
        assert "Hello there" in back.json()["prompt"]


async def test_every_path_of_vllms_is_served_or_refused_with_a_reason(http, backends):
    described = (await http.get(f"{backends['phi-3-mini'].url}/openapi.json")).json()["paths"]
    bare = []
    for path, methods in described.items():
        for method in set(methods) & {"get", "post"}:
            asked = path.replace("{response_id}", "resp_1")
            got = await http.request(
                method, asked, json={"model": "phi-3-mini"} if method == "post" else None
            )
            error = got.json().get("error", {}) if got.status_code >= 400 else {}
            if got.status_code >= 500 or error.get("code") == "not_found":
                bare.append((method, path, got.status_code, error.get("code")))
    assert not bare
    assert len(described) > 20


async def test_vllm_has_no_path_that_the_list_lacks(backends):
    listed = {path for _, path in VLLM_PATHS}
    for server in backends.values():
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as vllm:
            assert (await vllm.get("/openapi.json")).json()["paths"].keys() <= listed
