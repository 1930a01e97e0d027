"""The image that buildah built: what it says of itself, what is in it, and that it serves."""

import json
import subprocess

import httpx
import pytest

from tests.e2e import image
from tests.e2e.built_image import BuiltContainer, build
from tests.e2e.cluster_tools import MissingToolError
from tests.e2e.processes import free_port

MOST_BYTES = 380 << 20
"""Of what the Dockerfile adds to its base."""


@pytest.fixture(scope="module")
def built(pytestconfig):
    # Not captured: a build takes minutes, and someone waits for it.
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        try:
            return build()
        except MissingToolError as error:
            pytest.skip(str(error))


def once(built, argv, **environ):
    """Run a command in the image; what it printed."""
    command = image.contained(
        built.root,
        argv,
        user=built.settings["User"],
        binds={},
        environ={**built.env(), **environ},
        whole=True,
    )
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_it_says_what_the_dockerfile_says(built):
    final = image.stages()[-1]
    assert built.settings["User"] == final.last("USER") == "10001:10001"
    assert built.start_command() == image.start_command()
    assert built.settings["WorkingDir"] == "/tmp"  # noqa: S108
    assert built.env()["MALLOC_ARENA_MAX"] == "2"
    check = built.settings["Healthcheck"]
    said = json.loads(final.last("HEALTHCHECK").partition(" CMD ")[2])
    assert check["Test"] == ["CMD", *said]
    assert (check["Interval"], check["Retries"]) == (10_000_000_000, 3)


def test_what_it_adds_to_its_base_is_bounded(built):
    files = [path for path in (built.root / "opt" / "joulegate").rglob("*") if path.is_file()]
    added = sum(path.lstat().st_size for path in files if not path.is_symlink())
    assert added < MOST_BYTES, f"{added >> 20} MiB"


def test_it_runs_as_nobody_who_can_write_nothing(built):
    script = (
        "import os; print(os.getuid(), os.getgid());"
        "print([line for line in open('/proc/self/status') if line.startswith('CapEff')])\n"
        "for place in ('/', '/opt/joulegate', '/usr', '/tmp'):\n"
        "    try: open(place + '/x', 'w'); print('wrote', place)\n"
        "    except OSError: pass"
    )
    done = once(built, ["python", "-I", "-c", script])
    assert done.stdout.splitlines() == [
        "10001 10001",
        "['CapEff:\\t0000000000000000\\n']",
    ], done.stderr


def test_it_serves_and_its_health_check_says_so(built, tmp_path):
    ports = {"backend": free_port(), "gateway": free_port()}
    backend = BuiltContainer(
        ["joulegate", "backend", "phi-3-mini", "--simulate", "--port", str(ports["backend"])],
        ports["backend"],
        tmp_path / "backend",
    )
    health = f"http://127.0.0.1:{ports['gateway']}/health"
    gateway = BuiltContainer(
        [*built.start_command(), "--port", str(ports["gateway"])],
        ports["gateway"],
        tmp_path / "gateway",
        JOULEGATE_HEALTH_URL=health,
    )
    config = {
        "models": [{"name": "phi-3-mini", "context": 4096, "backends": [{"url": backend.url}]}]
    }
    (tmp_path / "gateway" / "configs" / "gateway.yaml").write_text(json.dumps(config))
    check = built.settings["Healthcheck"]["Test"][1:]
    assert once(built, check, JOULEGATE_HEALTH_URL=health).returncode == 1
    try:
        for server in (backend, gateway):
            server.start()
        backend.wait_until_up(seconds=60)
        gateway.wait_until_up("/ready", 60)
        assert once(built, check, JOULEGATE_HEALTH_URL=health).returncode == 0
        body = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60)
        assert answer.raise_for_status().json()["model"] == "phi-3-mini"
    finally:
        for server in (gateway, backend):
            server.close()
