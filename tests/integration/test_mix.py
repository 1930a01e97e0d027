"""A thousand requests of mixed kinds against the demo's set-up: all answered, nothing left over."""

import asyncio
import collections
import socket

import aiohttp
import openai

from gateway import profile as profiles
from gateway.app import create_app
from gateway.commands.demo import command as demo
from gateway.commands.demo import fleet
from gateway.commands.demo.example_config import make_example_config
from tests.integration.harness import DONE, HELLO, total, until

COUNT = 1000
CONCURRENCY = 50
SPEED = 200.0
TOOLS = ("phi-3-mini", "mistral-7b")
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
NAMES = (
    "auto",
    "joulegate/auto",
    "auto:accuracy",
    "auto:energy",
    "auto:time",
    "auto:balanced",
    "phi-3-mini",
    "mistral-7b",
    "falcon-7b",
)


class Mix:
    """Asks in every way there is; each of them says who answered."""

    def __init__(self, base, http, sdk):
        self._base = base
        self._http = http
        self._sdk = sdk

    async def ask(self, k):
        name = NAMES[k % len(NAMES)]
        body = {"model": name, "messages": [{"role": "user", "content": f"Question {k}?"}]}
        ways = (self.unary, self.stream, self.tools, self.long, self.completion, self.sdk_stream)
        return await ways[k % len(ways)](k, body)

    async def post(self, body, headers=None, path="chat/completions"):
        async with self._http.post(
            f"{self._base}/v1/{path}", json=body, headers=headers
        ) as response:
            return response.status, await response.read()

    async def unary(self, k, body):
        weights = {"x-joulegate-weight-energy": str(k % 5), "x-joulegate-weight-time": "1"}
        status, raw = await self.post(body, weights)
        assert b'"choices"' in raw
        return status

    async def stream(self, k, body):
        body |= {"stream": True, "joulegate": {"explain": bool(k % 2)}}
        status, raw = await self.post(body, {"x-joulegate-policy": "hybrid"})
        assert raw.endswith(b"data: " + DONE + b"\n\n")
        assert (b'"joulegate"' in raw) is bool(k % 2)
        return status

    async def tools(self, k, body):
        if body["model"] == "falcon-7b":
            body["model"] = "auto"
        status, raw = await self.post(body | {"tools": [TOOL], "stream": bool(k % 4)})
        assert b'"tool_calls"' in raw
        return status

    async def long(self, k, body):
        words = "many words of which none matters " * (30 + k % 170)
        body |= {"messages": [*HELLO, {"role": "user", "content": words}], "max_tokens": 8}
        status, raw = await self.post(body)
        assert b'"choices"' in raw
        return status

    async def completion(self, k, body):
        body = {"model": body["model"], "prompt": f"Once {k}", "n": 1 + k % 2, "max_tokens": 9}
        status, raw = await self.post(body, path="completions")
        assert b'"text_completion"' in raw
        return status

    async def sdk_stream(self, k, body):
        options = {"include_usage": bool(k % 4)}
        stream = await self._sdk.chat.completions.create(
            **body, stream=True, stream_options=options
        )
        words = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(words).startswith("[simulated")
        return stream.response.status_code


async def test_a_thousand_requests(tmp_path):
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    profile = tmp_path / "profile.json"
    models = profiles.load_profile(None).models
    profiles.save_profile(fleet.speed_up_models(models, SPEED), profile)
    async with fleet.run_simulators(models, SPEED) as running:
        urls = {name: simulator.url for name, simulator in running.items()}
        config = make_example_config(urls, tools=TOOLS, profile=str(profile))
        app = create_app(config)
        async with demo.serve_gateway(app, listener):
            gateway = app.state.runtime.gateway
            before = asyncio.all_tasks()
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
                openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="x", max_retries=0) as sdk,
            ):
                statuses = await ask_all(Mix(base, http, sdk))
                assert statuses == {200: COUNT}
                async with http.get(f"{base}/metrics") as response:
                    page = await response.text()
            assert total(page, "joulegate_requests_total") == COUNT
            assert total(page, "joulegate_requests_total", code="200") == COUNT
            assert total(page, "joulegate_request_duration_seconds_count") == COUNT
            assert total(page, "joulegate_decisions_total") == COUNT
            for name in ("retries", "client_disconnects", "streams_broken", "backend_ejections"):
                assert total(page, f"joulegate_{name}_total") == 0, name
            await nothing_is_left(app.state.runtime, gateway, running, before)


async def ask_all(mix):
    """Every request, so many at a time; how many got each status."""
    numbers = iter(range(COUNT))
    statuses = collections.Counter()

    async def client():
        for k in numbers:
            statuses[await mix.ask(k)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(client())
    return statuses


async def nothing_is_left(runtime, gateway, running, before):
    """Nothing is in flight anywhere, no task goes on, no connection is held."""
    assert gateway.inflight_requests == 0
    assert [backend.inflight for backend in gateway.backends] == [0, 0, 0]
    for simulator in running.values():
        engine = simulator.engine
        await until(lambda engine=engine: engine.running_requests == engine.waiting_requests == 0)
    assert runtime._client.busy == 0
    # The clients are gone, so their connections and the tasks that served them go as well;
    # what is left to the simulators is what is kept alive for the next request.
    kept = sum(pool.idle for pool in runtime._client._pools.values())
    assert kept <= CONCURRENCY * 3

    def settled():
        tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
        # The simulators' side of kept-alive connections is a task each.
        left = [t for t in tasks if "RequestHandler.start" not in repr(t.get_coro())]
        return not left

    await until(settled, "every task to end")
    held = [len(simulator._runner.server.connections) for simulator in running.values()]
    assert sum(held) <= kept + 3
