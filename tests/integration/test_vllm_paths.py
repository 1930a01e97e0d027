"""Every path that vLLM has is served, or refused with a reason: none is a bare 404."""

import aiohttp
import pytest
from aiohttp import web

from backends.simulator.server import create_app
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.named_endpoints import (
    CANCEL_RESPONSE,
    GET_RESPONSE,
    NAMED,
    REFUSED,
)
from tests.integration.harness import model
from tests.integration.simulated import SPEC
from tests.integration.typed import message, response
from tests.integration.vllm_paths import VLLM_PATHS

ASKED = {
    "model": "phi-3-mini",
    "messages": [{"role": "user", "content": "x"}],
    "prompt": "x",
    "input": "x",
    "max_tokens": 5,
}
CHAT = {"role": "assistant", "content": "y"}


async def answering(_, seen):
    if seen.path == "/v1/responses":
        return web.json_response(response(seen.json))
    if seen.path == "/v1/messages/count_tokens":
        return web.json_response({"input_tokens": 3})
    if seen.path == "/v1/messages":
        return web.json_response(message(seen.json))
    choice = {"index": 0, "message": CHAT, "text": "y", "finish_reason": "stop"}
    return web.json_response({"id": "x", "model": "phi-3-mini", "choices": [choice], "data": []})


@pytest.fixture
async def gate(world):
    capabilities = ("chat", "completions", "embeddings")
    backend = await world.recorder(answering)
    return await world.gate(model("phi-3-mini", backend, capabilities=capabilities))


async def ask_path(gate, method, path):
    if path.startswith("/v1/audio/"):
        form = aiohttp.FormData({"model": "phi-3-mini"})
        form.add_field("file", b"sound", filename="a.wav")
        async with gate.http.post(path, data=form) as got:
            return got.status, await got.json()
    if method == "GET":
        got = await gate.get(path)
    else:
        got = await gate.ask(b"" if path.endswith("/cancel") else ASKED, path=path)
    return got.status, got.json if got.status != 200 else None


def is_right(path, status, told):
    """Whether a path is answered as it should be."""
    if path in REFUSED:
        error = told["error"]
        return (status, error["code"]) == (403, "not_offered") and path in error["message"]
    if "{response_id}" in path:
        return (status, told["error"]["code"]) == (404, "response_not_found")
    return status == 200


async def test_every_path_of_vllms_is_served_or_says_why_not(gate):
    wrong = []
    for method, path in VLLM_PATHS:
        status, told = await ask_path(gate, method, path.replace("{response_id}", "resp_unknown"))
        if not is_right(path, status, told):
            wrong.append((method, path, status, told))
    assert wrong == []


async def test_a_web_socket_is_refused_with_the_reason(gate):
    with pytest.raises(aiohttp.WSServerHandshakeError) as told:
        await gate.http.ws_connect("/v1/realtime")
    assert told.value.status == 403


def test_what_is_refused_and_what_is_served_by_name_are_paths_of_vllms():
    listed = {path for _, path in VLLM_PATHS}
    assert set(REFUSED) <= listed
    assert {endpoint.url_path for endpoint in NAMED} <= listed


def test_the_simulator_has_every_endpoint_that_the_gateway_serves():
    routes = create_app(SPEC).router.routes()
    simulated = {route.resource.canonical for route in routes}
    served = {endpoint.url_path for endpoint in (*EndpointKind, *NAMED)}
    assert served | {GET_RESPONSE.url_path, CANCEL_RESPONSE.url_path} <= simulated
