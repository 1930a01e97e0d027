"""The image's start commands as the image runs them: as nobody, with nothing to write to."""

import json
import re
import subprocess
import threading
import time
from pathlib import Path

import httpx
import msgspec
import pytest
import yaml

from gateway import profile as profiles
from tests.e2e import image
from tests.e2e.processes import Server, free_port, total

COMPOSE = yaml.safe_load((image.ROOT / "compose.yaml").read_text())
# uvicorn ends gracefully and then raises the signal that it caught once more, which process 1 of a
# container has no default for.
ENDED = (0, 143)
LONG = {
    "model": "phi-3-mini",
    "messages": [{"role": "user", "content": "Count."}],
    "max_tokens": 60,
    "ignore_eos": True,
    "stream": True,
}


def end(*servers: Server) -> None:
    for server in servers:
        server.close()


def eventually(what, seconds=30.0):
    """Wait until `what()` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def simulator(folder: Path) -> image.Container:
    port = free_port()
    argv = ["joulegate", "backend", "phi-3-mini", "--simulate", "--port", str(port)]
    return image.Container(argv, port, folder)


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    server = simulator(tmp_path_factory.mktemp("backend"))
    server.start()
    server.wait_until_up(seconds=30)
    yield server
    end(server)


@pytest.fixture
def started(backend, tmp_path):
    """The gateway by ENTRYPOINT and CMD; its configs are a volume with a profile in it."""
    folder = tmp_path / "gateway"
    port = free_port()
    argv = [*image.start_command(), "--port", str(port)]
    health = f"http://127.0.0.1:{port}/health"
    server = image.Container(argv, port, folder, JOULEGATE_HEALTH_URL=health)
    config = {
        "models": [{"name": "phi-3-mini", "context": 4096, "backends": [{"url": backend.url}]}],
        "profile": "profile.json",
    }
    volume = folder / "configs"
    for name, accuracy in (("..2026_01", 0.51), ("..2026_02", 0.52)):
        (volume / name).mkdir()
        (volume / name / "gateway.yaml").write_text(yaml.safe_dump(config))
        models = dict(profiles.load_profile(None).models)
        models["phi-3-mini"] = msgspec.structs.replace(
            models["phi-3-mini"], accuracy=profiles.AccuracyProfile(accuracy)
        )
        profiles.save_profile(models, volume / name / "profile.json")
    (volume / "..data").symlink_to("..2026_01")
    for name in ("gateway.yaml", "profile.json"):
        (volume / name).symlink_to(f"..data/{name}")
    server.start()
    server.wait_until_up("/ready", 30)
    yield server, volume
    end(server)


def once(tmp_path, argv, **environ):
    """Run a command in a container of its own, to its end."""
    configs, root = tmp_path / "configs", tmp_path / "root"
    configs.mkdir(parents=True)
    root.mkdir()
    command = image.container(root, argv, configs, **environ)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_linters_have_no_complaint(command):
    program = image.lint_tools() / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=image.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs_as_nobody_with_nothing_to_write_to(tmp_path):
    script = """
import json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
mounts = [line.split()[1] for line in open("/proc/self/mounts")]
mounts = [place for place in mounts if not place.startswith(("/proc", "/dev"))]
print(json.dumps({"ids": [os.getuid(), os.getgid()], "pid": os.getpid(),
    "mounts": len(mounts) > 3,
    "writable": [m for m in mounts if not os.statvfs(m).f_flag & os.ST_RDONLY],
    "powers": status["CapEff"].strip(), "gains": status["NoNewPrivs"].strip()}))
"""
    done = once(tmp_path, ["python", "-c", script])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "ids": [10001, 10001],
        "pid": 1,
        "mounts": True,
        "writable": [],
        "powers": "0" * 16,
        "gains": "1",
    }


def test_what_is_in_it(tmp_path):
    script = "import importlib.util as u; print([n for n in NAMES if u.find_spec(n)])"
    names = ["gateway", "backends", "calibration", "numpy", "pynvml", "tiktoken_ext"]
    names += ["pip", "pytest", "mypy", "vllm"]
    done = once(tmp_path, ["python", "-I", "-c", script.replace("NAMES", repr(names))])
    assert done.stdout.strip() == str(names[:6]), done.stderr


def test_the_health_check_passes_while_it_lives_and_fails_after(started, tmp_path):
    server, _ = started
    check = json.loads(image.stages()[-1].last("HEALTHCHECK").partition(" CMD ")[2])
    url = f"{server.url}/health"
    assert once(tmp_path / "well", check, JOULEGATE_HEALTH_URL=url).returncode == 0
    server.kill()
    assert once(tmp_path / "dead", check, JOULEGATE_HEALTH_URL=url).returncode == 1


def test_sigterm_lets_a_stream_end_within_the_grace_period(started):
    server, _ = started
    grace = float(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s"))
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=LONG, timeout=60) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        next(lines)
        told = time.monotonic()
        server.stop()
        *_, last = (line for line in lines if line)
    assert last == "data: [DONE]"
    assert server.process.wait(grace) in ENDED
    assert time.monotonic() - told < grace
    assert "Traceback" not in server.tail()


def test_a_profile_configmaps_swap_is_adopted_and_it_stays_ready(started):
    server, volume = started
    version = profiles.load_profile(volume / "..2026_02" / "profile.json").version
    answers = []
    swapped = threading.Event()

    def watch():
        with httpx.Client() as http:
            while not swapped.is_set():
                answers.append(http.get(f"{server.url}/ready").status_code)

    def adopted():
        return total(server.get("/metrics"), "joulegate_profile_info", version=version) == 1

    assert not adopted()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=LONG, timeout=60
        ) as response:
            # What the kubelet does: a new folder, a new link beside the old one, one rename.
            (volume / "..data_tmp").symlink_to("..2026_02")
            (volume / "..data_tmp").rename(volume / "..data")
            eventually(adopted)
            *_, last = (line for line in response.iter_lines() if line)
    finally:
        swapped.set()
        watcher.join()
    assert last == "data: [DONE]"
    assert set(answers) == {200}
    assert len(answers) > 10


def test_the_simulator_ends_on_sigterm(tmp_path):
    server = simulator(tmp_path)
    server.start()
    server.wait_until_up(seconds=30)
    try:
        server.stop()
        assert server.process.wait(10) in ENDED
    finally:
        end(server)


def test_compose_comes_up_and_meters_a_request(tmp_path):
    ours = {
        name: service
        for name, service in COMPOSE["services"].items()
        if service.get("pull_policy") == "never" and "profiles" not in service
    }
    ports = {name: free_port() for name in ours}
    servers = {}
    for name, service in ours.items():
        argv = [image.start_command()[0], *service["command"]] if "command" in service else None
        argv = [*(argv or image.start_command()), "--port", str(ports[name])]
        server = servers[name] = image.Container(argv, ports[name], tmp_path / name)
        for config in service.get("configs", ()):
            text = (image.ROOT / COMPOSE["configs"][config["source"]]["file"]).read_text()
            # Every container has the machine's network here, so names become ports.
            text = re.sub(r"//([\w-]+):\d+", lambda m: f"//127.0.0.1:{ports[m[1]]}", text)
            (tmp_path / name / "configs" / Path(config["target"]).name).write_text(text)
        server.start()
    try:
        for server in servers.values():
            server.wait_until_up(seconds=60)
        servers["gateway"].wait_until_up("/ready", 30)
        body = {**LONG, "model": "auto", "stream": False, "max_tokens": 20}
        answer = httpx.post(
            f"{servers['gateway'].url}/v1/chat/completions", json=body, timeout=60
        ).raise_for_status()
        assert answer.json()["model"] in ours

        def metered():
            page = servers["meter"].get("/metrics")
            return total(page, "joulegate_meter_attributed_joules_total", kind="request") > 0

        eventually(metered)
        for name, server in servers.items():
            server.stop()
            assert server.process.wait(10) in ENDED, name
    finally:
        end(*servers.values())
