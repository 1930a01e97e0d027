"""Fixtures of the end-to-end tests: real vLLM on the CPU behind a real gateway.

JOULEGATE_E2E=0 skips them; JOULEGATE_E2E_CACHE says where what they install is kept.
"""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e import install
from tests.e2e.fleet import FLEET, gateway_server, running, vllm_server
from tests.e2e.processes import Server

HERE = Path(__file__).parent
STARTED: list[Server] = []


def pytest_collection_modifyitems(config, items):
    del config
    mine = [item for item in items if item.path.is_relative_to(HERE)]
    # The broken backends come last: nothing mends them.
    items.sort(key=lambda item: item.path.name == "test_failures.py")
    if os.environ.get("JOULEGATE_E2E") == "0":
        for item in mine:
            item.add_marker(pytest.mark.skip(reason="JOULEGATE_E2E=0"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    del item
    report = yield
    if report.failed and call.when == "call":
        for server in STARTED:
            report.sections.append((f"end of {server.log}", server.tail(1500)))
    return report


@pytest.fixture(scope="session", autouse=True)
def _terminated_like_interrupted():
    # A pytest that is told to stop must still run its fixtures' ends: four servers hang on them.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _starting(config):
    # Not captured: an install or a start takes minutes, and someone waits for it.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        try:
            yield
        except RuntimeError as error:
            # Without its servers every test would fail with the same page of log.
            pytest.exit(f"the end-to-end tests cannot start: {error}", returncode=1)


@pytest.fixture(scope="session")
def backends(tmp_path_factory, pytestconfig):
    """Name -> vLLM server, all up and warm."""
    logs = tmp_path_factory.mktemp("vllm")
    with contextlib.ExitStack() as stack:
        with _starting(pytestconfig):
            python, models = install.vllm_python(), install.models()
            servers = {name: vllm_server(FLEET[name], python, models, logs) for name in FLEET}
            STARTED.extend(servers.values())
            stack.enter_context(running(list(servers.values())))
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(_warm_up, servers.values()))
        yield servers


def _warm_up(server: Server) -> None:
    # The first sampled answer with log probabilities makes torch compile for up to 14 s.
    body = {"model": server.name, "prompt": "Hello", "max_tokens": 2, "logprobs": 1}
    httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).raise_for_status()


@pytest.fixture(scope="session")
def gateway(backends, tmp_path_factory, pytestconfig):
    """The gateway, ready, before all four backends."""
    server = gateway_server(backends, tmp_path_factory.mktemp("gateway"))
    STARTED.append(server)
    with contextlib.ExitStack() as stack:
        with _starting(pytestconfig):
            stack.enter_context(running([server]))
            server.wait_until_up("/ready", 30)
        yield server


@pytest.fixture
async def client(gateway):
    """OpenAI's Python SDK as anyone would use it: only the base URL differs."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused") as sdk:
        yield sdk


@pytest.fixture(scope="session")
def javascript(gateway, pytestconfig):
    """Run a script beside this file with OpenAI's JavaScript SDK; return what it printed."""
    with _starting(pytestconfig):
        folder = install.openai_js()

    def run(name):
        # Node.js looks for packages from the script's own folder upwards.
        script = folder / name
        script.write_bytes((HERE / name).read_bytes())
        done = subprocess.run(
            ["node", script, f"{gateway.url}/v1"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
