"""The chart's demo without a cluster: each container's own command, with the DNS names put back.

What Kubernetes adds (scheduling, volumes, name resolution) is done here by hand; commands, options,
gateway.yaml, the profile and the test pod's script are those that helm renders.
"""

import contextlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.fleet import running
from tests.e2e.helm_tools import CHART, one, pods, rendered
from tests.e2e.processes import Server, free_port, total

JOULEGATE = str(Path(sys.executable).with_name("joulegate"))
# The meter's secret too, which the demo's values leave out.
METERED = ("--set", "meter.secret.name=meter")
SECRET = "s3cret"


def _moved(args, *, port, beside=None, folder=None):
    """A container's arguments on this machine: its port, its neighbour's, its mounts."""
    text = json.dumps(args)
    text = re.sub(r"--port=\d+", f"--port={port}", text).replace("0.0.0.0", "127.0.0.1")
    text = text.replace("localhost:8000", f"127.0.0.1:{beside}")
    text = text.replace("/etc/meter", str(folder)).replace("/etc/joulegate", str(folder))
    return [JOULEGATE, *json.loads(text)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The gateway with its simulated servers and meters behind it, and what was rendered."""
    folder = tmp_path_factory.mktemp("demo")
    objects = rendered(CHART / "ci" / "demo-values.yaml", more=METERED)
    (folder / "secret").write_text(SECRET)
    for name in ("jg-joulegate-config", "jg-joulegate-profile"):
        for file, text in one(objects, "ConfigMap", name)["data"].items():
            (folder / file).write_text(text)
    config = folder / "gateway.yaml"
    servers, meters = [], []
    for tree in (tree for tree in objects if tree["kind"] == "StatefulSet"):
        name, service = tree["metadata"]["name"], tree["spec"]["serviceName"]
        containers = {
            each["name"]: each for each in pods([tree])[f"StatefulSet/{name}"]["containers"]
        }
        for place in range(tree["spec"]["replicas"]):
            host = f"http://{name}-{place}.{service}.llm.svc.cluster.local"
            port, meter_port = free_port(), free_port()
            log = folder / f"{name}-{place}.log"
            argv = _moved(containers["server"]["args"], port=port)
            servers.append(Server(f"{name}-{place}", argv, port, log, {}))
            argv = _moved(containers["meter"]["args"], port=meter_port, beside=port, folder=folder)
            log = folder / f"{name}-{place}-meter.log"
            meters.append(Server(f"{name}-{place}-meter", argv, meter_port, log, {}))
            text = config.read_text().replace(f"{host}:8000", f"http://127.0.0.1:{port}")
            config.write_text(text.replace(f"{host}:9464", f"http://127.0.0.1:{meter_port}"))
    assert "cluster.local" not in config.read_text()
    (container,) = pods(objects)["Deployment/jg-joulegate"]["containers"]
    port = free_port()
    argv = _moved(container["args"], port=port, folder=folder)
    env = {"METER_SECRET": SECRET}
    gateway = Server("gateway", argv, port, folder / "gateway.log", env)
    with contextlib.ExitStack() as stack:
        for group in (servers, meters, [gateway]):
            stack.enter_context(running(group))
        gateway.wait_until_up("/ready", 60)
        yield gateway, meters, objects


def _ask(gateway, model):
    body = {"model": model, "messages": [{"role": "user", "content": "Explain"}], "max_tokens": 20}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=30)
    return answer.raise_for_status()


@pytest.mark.parametrize("model", ["phi-3-mini", "mistral-7b", "falcon-7b"])
def test_every_model_answers_and_its_meter_accounts_for_it(demo, model):
    gateway, meters, _ = demo
    request = _ask(gateway, model).headers["x-request-id"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        record = json.loads(gateway.get(f"/v1/requests/{request}"))
        if '"exclusive"' in json.dumps(record) or '"apportioned"' in json.dumps(record):
            break
        time.sleep(0.2)
    else:
        pytest.fail(f"no meter accounted for it: {record}")
    mine = [meter for meter in meters if model in meter.name]
    series = "joulegate_meter_attributed_joules_total"
    assert sum(total(meter.get("/metrics"), series, kind="request") for meter in mine) > 0


def test_auto_chooses(demo):
    gateway, _, _ = demo
    assert _ask(gateway, "auto:energy").headers["x-joulegate-model"] == "phi-3-mini"


def test_helm_test_s_own_script_passes(demo):
    gateway, _, objects = demo
    (container,) = one(objects, "Pod")["spec"]["containers"]
    (script,) = container["args"]
    service = one(objects, "Service", "jg-joulegate")
    host = f"http://jg-joulegate:{service['spec']['ports'][0]['port']}"
    assert host in script
    done = subprocess.run(
        [sys.executable, *container["command"][1:], script.replace(host, gateway.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "falcon-7b" in done.stdout


def test_what_was_read_is_what_was_rendered(demo):
    gateway, _, objects = demo
    text = one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
    names = {model["name"] for model in yaml.safe_load(text)["models"]}
    listed = {model["id"] for model in json.loads(gateway.get("/v1/models"))["data"]}
    assert names <= listed
