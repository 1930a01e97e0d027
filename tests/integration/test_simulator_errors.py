"""What the simulated vLLM refuses, in vLLM's words."""

import json

import aiohttp
import pytest

from backends.simulator.server import start_simulator
from tests.integration import simulated
from tests.integration.simulated import CHAT, WEATHER, spec

running, http = simulated.running, simulated.http

WRONG_TOOL = json.dumps(
    CHAT | {"tools": [{"function": {"name": "f"}}], "tool_choice": {"function": "f"}}
)
WRONG_SCHEMA = json.dumps(
    CHAT | {"structured_outputs": {"json": {"type": "array", "minItems": "x"}}}
)


class TestErrors:
    @pytest.mark.parametrize(
        ("path", "body", "status", "kind", "words"),
        [
            ("chat/completions", b"{", 400, "BadRequestError", "JSON decode error"),
            ("chat/completions", b'{"messages":"\xff"}', 400, "BadRequestError", ""),
            ("chat/completions", b"{}", 400, "BadRequestError", "messages"),
            ("chat/completions", b'{"messages":[]}', 400, "BadRequestError", "messages"),
            ("chat/completions", b'{"messages":[{"role":1}]}', 400, "BadRequestError", "role"),
            ("chat/completions", b"[" * 5000, 400, "BadRequestError", ""),
            ("completions", b'{"prompt":[]}', 400, "BadRequestError", "empty"),
            ("completions", b'{"prompt":"a","max_tokens":0}', 400, "BadRequestError", "at least 1"),
            ("completions", b'{"prompt":"a","n":0}', 400, "BadRequestError", "$.n"),
            ("completions", b'{"prompt":"a","n":1000}', 400, "BadRequestError", "$.n"),
            ("completions", b'{"prompt":"a","min_tokens":-1}', 400, "BadRequestError", "min_t"),
            ("completions", b'{"prompt":"a","logprobs":21}', 400, "BadRequestError", "logprobs"),
            ("completions", b'{"prompt":["a",1]}', 400, "BadRequestError", "mix"),
            ("chat/completions", WRONG_TOOL, 400, "BadRequestError", "tool"),
            ("chat/completions", WRONG_SCHEMA, 400, "BadRequestError", "schema"),
            ("completions", b'{"prompt":"a","model":"x"}', 404, "NotFoundError", "`x` does not"),
            ("completions", b'{"prompt":"a","max_tokens":513}', 400, "BadRequestError",
             "max_tokens=513 cannot be greater than max_model_len=512"),
            ("completions", b'{"prompt":"' + b"word " * 600 + b'"}', 400, "BadRequestError",
             "maximum context length is 512 tokens. However, your request has"),
            ("nowhere", b"{}", 404, "NotFoundError", "Not Found"),
        ],
    )  # fmt: skip
    async def test_errors_have_vllms_shape(self, http, path, body, status, kind, words):
        async with http.post(f"/v1/{path}", data=body) as response:
            answer = await response.json()
        assert response.status == status
        assert response.headers["x-simulated"] == "true"
        error = answer["error"]
        assert (error["type"], error["code"]) == (kind, status)
        assert words in error["message"]

    async def test_a_key_is_asked_for_under_v1_only(self):
        async with (
            await start_simulator(spec(api_key="s3cret")) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            async with session.get("/v1/models") as response:
                assert (response.status, await response.json()) == (401, {"error": "Unauthorized"})
            headers = {"authorization": "Bearer s3cret"}
            async with session.get("/v1/models", headers=headers) as response:
                assert response.status == 200
            async with session.get("/health") as response:
                assert response.status == 200

    async def test_auto_tools_need_a_server_that_has_them(self):
        async with (
            await start_simulator(spec(tools=False)) as server,
            aiohttp.ClientSession(server.url) as session,
        ):
            body = CHAT | {"tools": [WEATHER]}
            async with session.post("/v1/chat/completions", json=body) as response:
                assert response.status == 400
                assert "--enable-auto-tool-choice" in (await response.text())
