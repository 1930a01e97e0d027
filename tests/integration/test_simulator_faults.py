"""Every fault that the simulated vLLM can be told to have."""

import asyncio
import json
import re

import aiohttp
import openai
import pytest

from backends.simulator.faults import FAULT_KINDS
from tests.integration import simulated
from tests.integration.simulated import CHAT, HELLO
from tests.waiting import until

running, http, sdk = simulated.running, simulated.http, simulated.sdk


class TestFaults:
    stream = CHAT | {"stream": True, "stream_options": {"include_usage": True}}

    async def test_every_fault_says_what_it_does(self):
        assert all(len(text) > 10 for text in FAULT_KINDS.values())

    async def test_status_count_and_healing(self, http, running):
        running.faults.set_fault("status", status=503, retry_after="7", count=2)
        for _ in range(2):
            async with http.post("/v1/chat/completions", json=CHAT) as response:
                assert (response.status, response.headers["retry-after"]) == (503, "7")
                assert (await response.json())["error"]["code"] == 503
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
        assert running.faults.served["status"] == 2
        running.faults.set_fault("status", status=502, html=True)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, response.content_type) == (502, "text/html")
        running.faults.set_fault("status", status=400, body={"detail": "no"})
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, await response.json()) == (400, {"detail": "no"})

    async def test_over_http(self, http, running):
        faults = {"status": {"status": 429, "count": 3}, "unhealthy": {}}
        async with http.put("/simulator/faults", json=faults) as response:
            assert response.status == 200
        async with http.get("/health") as response:
            assert response.status == 503
        async with http.get("/simulator/faults") as response:
            state = await response.json()
        assert state["active"]["status"]["status"] == 429
        assert state["served"]["unhealthy"] == 1
        for wrong in ({"nonsense": {}}, {"status": {"status": "x"}}, {"status": {"colour": 1}}, []):
            async with http.put("/simulator/faults", json=wrong) as response:
                assert response.status == 400
        assert set(running.faults.active) == {"status", "unhealthy"}
        async with http.delete("/simulator/faults") as response:
            assert response.status == 204
        async with http.get("/health") as response:
            assert response.status == 200

    async def test_probability(self, http, running):
        running.faults.set_fault("status", status=500, probability=0.5)
        got = set()
        for _ in range(40):
            async with http.post("/v1/completions", json={"prompt": "a"}) as response:
                got.add(response.status)
        assert got == {200, 500}

    async def test_refuse_and_reopen(self, http, running):
        async with http.get("/health") as response:  # leaves a kept-alive connection
            assert response.status == 200
        running.faults.set_fault("refuse")
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.post("/v1/chat/completions", json=CHAT)
        async with aiohttp.ClientSession(running.url) as fresh:
            with pytest.raises(aiohttp.ClientConnectorError):
                await fresh.get("/health")
        running.faults.clear_faults("refuse")
        await until(lambda: running._listener is not None)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200

    async def test_refuse_heals_by_itself(self, http, running):
        running.faults.set_fault("refuse", for_seconds=0.05)
        await until(lambda: running._listener is not None)
        async with http.get("/health") as response:
            assert response.status == 200

    @pytest.mark.parametrize("kind", ["reset_on_accept", "garbage"])
    async def test_no_http_answer(self, http, running, kind):
        running.faults.set_fault(kind)
        with pytest.raises(aiohttp.ClientError):
            await http.post("/v1/chat/completions", json=CHAT)

    async def test_wrong_bodies_with_200(self, http, running):
        running.faults.set_fault("html_200", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert (response.status, response.content_type) == (200, "text/html")
        running.faults.set_fault("json_200_error", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            assert "error" in await response.json()
        running.faults.set_fault("cut_json", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            cut = await response.read()
        with pytest.raises(json.JSONDecodeError):
            json.loads(cut)
        running.faults.set_fault("truncated_json", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()

    async def test_redirect(self, http, running):
        running.faults.set_fault("redirect", location="http://127.0.0.1:9/x")
        async with http.post("/v1/chat/completions", json=CHAT, allow_redirects=False) as response:
            assert response.status == 307
            assert response.headers["location"] == "http://127.0.0.1:9/x"

    async def test_silences(self, http, running):
        short = aiohttp.ClientTimeout(total=0.3)
        running.faults.set_fault("silent", count=1)
        with pytest.raises(TimeoutError):
            await http.post("/v1/chat/completions", json=CHAT, timeout=short)
        running.faults.set_fault("silent_after_headers", count=1)
        async with http.post("/v1/chat/completions", json=self.stream, timeout=short) as response:
            assert response.status == 200
            with pytest.raises(TimeoutError):
                await response.read()
        await until(lambda: running.engine.running_requests == 0)

    async def test_slow_headers(self, http, running):
        running.faults.set_fault("slow_headers", delay_s=0.2)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
        assert loop.time() - begun >= 0.19

    async def read_until_broken(self, http, sock_read=10.0):
        raw, patience = b"", aiohttp.ClientTimeout(total=20, sock_read=sock_read)
        async with http.post(
            "/v1/chat/completions", json=self.stream, timeout=patience
        ) as response:
            try:
                async for data in response.content.iter_any():
                    raw += data
            except aiohttp.ClientError as error:
                return raw, error
        return raw, None

    async def test_deaths(self, http, running):
        running.faults.set_fault("die_before_content", count=1)
        raw, error = await self.read_until_broken(http)
        assert error is not None
        assert raw.count(b"data: ") == 1
        assert b'"role":"assistant"' in raw
        running.faults.set_fault("die_after", chunks=4, count=1)
        raw, error = await self.read_until_broken(http)
        assert error is not None
        assert raw.count(b"data: ") == 1 + 4
        await until(lambda: running.engine.running_requests == 0)

    async def test_stall_after(self, http, running):
        running.faults.set_fault("stall_after", chunks=3)
        raw, error = await self.read_until_broken(http, sock_read=0.4)
        assert isinstance(error, TimeoutError)
        assert raw.count(b"data: ") == 1 + 3

    async def test_no_done(self, http, running):
        running.faults.set_fault("no_done")
        raw, error = await self.read_until_broken(http)
        assert error is None
        assert b"[DONE]" not in raw
        assert b'"usage"' in raw

    async def test_error_frame_after(self, http, running, sdk):
        running.faults.set_fault("error_frame_after", chunks=2)
        raw, error = await self.read_until_broken(http)
        assert error is None
        frames = raw.strip().split(b"\n\n")
        assert json.loads(frames[-2].removeprefix(b"data: "))["error"]["code"] == 500
        assert (len(frames), frames[-1]) == (1 + 2 + 2, b"data: [DONE]")
        with pytest.raises(openai.APIError):
            async for _ in await sdk.chat.completions.create(
                model="phi-3-mini", messages=HELLO, stream=True
            ):
                pass

    async def test_split_events(self, http, running):
        whole, _ = await self.read_until_broken(http)
        running.faults.set_fault("split_events")
        split, error = await self.read_until_broken(http)
        assert error is None
        ids = re.compile(rb'"id":"[^"]+"|"created":\d+|"simulated":.*')
        assert ids.sub(b"", split) == ids.sub(b"", whole)

    async def test_stream_faults_leave_unary_requests_alone(self, http, running):
        running.faults.set_fault("die_after", count=1)
        async with http.post("/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200
            await response.read()
        assert running.faults.served["die_after"] == 0
