"""`joulegate backend --simulate` of a GPU in the library, and of a model that was added from it."""

import asyncio
import contextlib
import signal
import socket

import aiohttp
import msgspec
import pytest

from backends.simulator.cost_model import CostModel
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import load_library
from tests.integration.harness import until
from tests.integration.process import joulegate

ENTRY = "Llama-3.1-70B-Instruct@4xH100"
ANSWER_TOKENS = 64


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


async def added(path):
    async with joulegate("library", "add", ENTRY, "--as", "llama", "--profile", path) as process:
        assert await process.ended() == 0, process.lines


@pytest.mark.parametrize("from_profile", [False, True])
async def test_a_library_entry_is_simulated_with_its_costs_and_idle_watts(tmp_path, from_profile):
    arguments = [ENTRY]
    if from_profile:
        await added(tmp_path / "profile.json")
        arguments = ["llama", "--profile", tmp_path / "profile.json"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    model, base = arguments[0], f"http://127.0.0.1:{port}"
    truth = CostModel.from_profile(msgspec.to_builtins(build_model_profile(load_library(), ENTRY)))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello there"}],
        "max_tokens": ANSWER_TOKENS,
        "ignore_eos": True,
    }
    options = ("--simulate", "--speed", 50, "--port", port)
    async with joulegate("backend", *arguments, *options) as process:
        await process.says(f"simulated {model}")
        await until(lambda: listens(port), "the simulator to listen")
        async with aiohttp.ClientSession(base) as http:
            async with http.post("/v1/chat/completions", json=body) as response:
                assert response.status == 200
                answer = await response.json()
            async with http.get("/metrics") as response:
                metrics = await response.text()
        tokens_in = answer["usage"]["prompt_tokens"]
        assert answer["usage"]["completion_tokens"] == ANSWER_TOKENS
        assert answer["simulated"]["energy_joules"] == pytest.approx(
            truth.total_joules(tokens_in, ANSWER_TOKENS), rel=0.05
        )
        idle = next(line for line in metrics.splitlines() if line.startswith("simulator_idle_j"))
        assert float(idle.rsplit(" ", 1)[1]) > 0.0
        process.send(signal.SIGTERM)
        assert await asyncio.wait_for(process.ended(), 20) == 0, process.lines


async def test_a_gpu_that_is_not_in_the_library_is_refused():
    async with joulegate("backend", "Qwen3-14B@A100", "--simulate") as process:
        assert await process.ended() == 2
        assert any("close: Qwen3-14B@" in line for line in process.lines), process.lines
