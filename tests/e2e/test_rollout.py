"""Servers replaced one after another under streams, as a rollout of the chart does it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.helm_tools import CHART
from tests.e2e.processes import Server, free_port
from tests.faults.rollout import Rollout

DRAINING = CHART / "files" / "joulegate_draining.py"

# A server that streams for three seconds, behind the chart's middleware, run by what runs vLLM.
SERVED = """
import asyncio
import sys

import uvicorn
from joulegate_draining import RefuseWhileDraining

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    start = {"type": "http.response.start", "status": 200, "headers": []}
    await send(start)
    beats = 30 if scope["path"].startswith("/v1") else 0
    for beat in range(beats):
        await send({"type": "http.response.body", "body": b"beat ", "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"end"})

uvicorn.run(RefuseWhileDraining(app), host="127.0.0.1", port=int(sys.argv[1]), lifespan="off")
"""


def test_replacing_each_server_in_turn_breaks_no_stream_and_fails_no_request(tmp_path):
    rollout = Rollout(tmp_path)
    asyncio.run(rollout.run(streams=100))
    assert rollout.replaced == 3
    assert set(rollout.fates) == {"whole"}, rollout.report()
    assert rollout.fates["whole"] > 300


@pytest.fixture
def server(tmp_path):
    port = free_port()
    argv = [sys.executable, "-c", SERVED, str(port)]
    mark = tmp_path / "mark"
    mark.touch()  # of a process before: a restarted container serves
    env = {
        "JOULEGATE_DRAIN_MARK": str(mark),
        "JOULEGATE_DRAIN_URL": f"http://127.0.0.1:{port}/health",
        "PYTHONPATH": str(DRAINING.parent),
    }
    running = Server("served", argv, port, tmp_path / "log", env)
    running.start()
    running.wait_until_up(seconds=30)
    yield running
    running.close()


def hook(server):
    return subprocess.Popen(
        [sys.executable, str(DRAINING)], env={**os.environ, **server.env}, cwd="/"
    )


def test_the_hook_of_vllm_refuses_what_is_new_and_waits_for_what_runs(server):
    with httpx.stream("POST", f"{server.url}/v1/x", timeout=60) as stream:
        beats = stream.iter_bytes()
        next(beats)
        leaving = hook(server)
        while not Path(server.env["JOULEGATE_DRAIN_MARK"]).exists():
            assert leaving.poll() is None
        refused = httpx.post(f"{server.url}/v1/x")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.headers["connection"] == "close"
        assert json.loads(refused.text)["error"]["code"] == 503
        # Kubernetes must not take it for ill meanwhile.
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.text) == (200, "1")
        assert leaving.poll() is None
        *_, last = beats
    assert last.endswith(b"end")
    assert leaving.wait(30) == 0
    assert httpx.get(f"{server.url}/health").text == "0"


def test_the_hook_of_an_idle_or_dead_server_ends(server):
    assert hook(server).wait(30) == 0
    server.kill()
    assert hook(server).wait(30) == 0
