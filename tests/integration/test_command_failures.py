"""Commands that cannot do what they are told: an exit code and a line, and no traceback."""

import asyncio
import contextlib
import signal
import socket

import pytest
import yaml

from tests.integration.harness import until
from tests.integration.process import joulegate


async def failed(*arguments):
    """Run a command that should fail: its exit code and what it said."""
    async with joulegate(*arguments) as process:
        code = await asyncio.wait_for(process.ended(), 20)
    said = [line for line in process.lines if line.strip()]
    assert not any("Traceback" in line for line in said), said
    return code, said


async def test_serving_on_a_taken_port(tmp_path):
    path = tmp_path / "gateway.yaml"
    backends = [{"url": "http://127.0.0.1:1"}]
    models = [{"name": "phi-3-mini", "context": 4096, "backends": backends}]
    path.write_text(yaml.safe_dump({"models": models}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = await failed("serve", "--config", path, "--port", port)
    assert code == 1
    assert len(said) == 1, said
    assert str(port) in said[0]
    assert "in use" in said[0].lower()


async def test_a_simulator_that_would_stand_still():
    code, said = await failed("backend", "phi-3-mini", "--simulate", "--speed", 0, "--port", 0)
    assert code == 2
    assert any("speed" in line for line in said), said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_simulator_ends_when_told_to(number):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with joulegate("backend", "phi-3-mini", "--simulate", "--port", port) as process:
        await process.says("simulated phi-3-mini")
        await until(lambda: listens(port), "the simulator to listen")
        process.send(number)
        assert await asyncio.wait_for(process.ended(), 20) == 0, process.lines


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
