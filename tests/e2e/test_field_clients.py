"""Clients and proxies of the field, at their defaults: the JDK's HttpClient, curl, nginx."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import free_port
from tests.integration.harness import STREAM, World, model

JAVA = Path(__file__).with_name("Offering.java")
OFFER = [
    *("-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c"),
    *("-H", "HTTP2-Settings: AAMAAABkAARAAAAA"),
]


def need(program):
    """Return a program's path, which a variable such as NGINX may give; skip where it is not."""
    found = shutil.which(os.environ.get(program.upper(), program)) or shutil.which(
        f"/usr/sbin/{program}"
    )
    if found is None:
        pytest.skip(f"needs {program}")
    return found


@pytest.fixture
async def gate():
    async with contextlib.AsyncExitStack() as stack:
        world = World(stack)
        backend = await world.simulator(truth_fields={"context": 1 << 20})
        yield await world.gate(model("phi-3-mini", backend, context=1 << 20))


async def output(*argv):
    """A program's standard output; the gateway serves in this very event loop."""
    done = await asyncio.to_thread(
        subprocess.run, [str(word) for word in argv], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("size", [10, 200_000])
async def test_the_jdks_http_client(gate, size):
    said = await output(need("java"), JAVA, gate.url, size)
    assert said.splitlines() == ["200 HTTP_1_1 true"] * 3


@pytest.mark.parametrize("flags", [["--http1.0"], OFFER, ["--http2"], ["--http1.1", "-I"]])
async def test_curl(gate, flags):
    curl = need("curl")
    if "-I" in flags:
        assert "200 OK" in await output(curl, "-sS", *flags, f"{gate.url}/v1/models")
        return
    url = f"{gate.url}/v1/chat/completions"
    said = await output(curl, "-sS", *flags, "-d", json.dumps(STREAM), url)
    assert said.startswith("data: {")
    assert said.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_offer_behind_nginx(gate, tmp_path, version):
    nginx, port = need("nginx"), free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"""daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
  fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {gate.url}; proxy_http_version {version}; proxy_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "Upgrade";
    }}
  }}
}}
"""
    )
    server = await asyncio.create_subprocess_exec(nginx, "-c", config, "-p", tmp_path)
    try:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        said = await output(
            need("curl"), "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1",
            *OFFER, "-d", json.dumps(STREAM), url,
        )  # fmt: skip
    finally:
        server.terminate()
        await server.wait()
    assert said.startswith("data: {")
    assert said.endswith("data: [DONE]\n\n")
