"""A model by KEDA's trigger in the chart: to none and back with the gateway holding requests.

The trigger, gateway.yaml and the profile are those that helm renders; Prometheus, gateway and the
simulated servers are real processes. What stands in for Kubernetes is here and in keda.py.
"""

import asyncio
import contextlib
import json
import re
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.helm_tools import one, rendered
from tests.e2e.keda import Keda
from tests.e2e.processes import Server, free_port
from tests.e2e.prometheus import NEEDED, Prometheus

pytestmark = NEEDED

MODEL = "mistral-7b"
MOST, EACH = 3, 4
LABELS = {"namespace": "llm", "service": "jg-joulegate"}
VALUES = {
    "gateway": {"config": {"health": {"probe_seconds": 0.5, "idle_probe_seconds": 0.5}}},
    "modelDefaults": {"mode": "simulator", "enabled": False},
    "models": {
        MODEL: {
            "enabled": True,
            "autoscaling": {
                "enabled": True,
                "maxReplicas": MOST,
                "requests": EACH,
                "serverAddress": "http://prometheus:9090",
                "pollingSeconds": 1,
                "cooldownSeconds": 3,
                "wakeSeconds": 90,
            },
        }
    },
    "meter": {"mode": "none"},
    "monitoring": {"serviceMonitor": True},
}
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 60}


class Labelled(Prometheus):
    """A Prometheus whose targets have the labels that a ServiceMonitor gives them."""

    def __init__(self, folder, targets):
        super().__init__(folder, {"gateway": targets})
        path = folder / "prometheus.yaml"
        config = yaml.safe_load(path.read_text())
        config["scrape_configs"][0]["static_configs"][0]["labels"] = LABELS
        path.write_text(yaml.safe_dump(config))


class Cluster:
    """The chart's objects, with a process for every pod."""

    def __init__(self, folder):
        objects = rendered(VALUES)
        name = f"jg-joulegate-{MODEL}"
        data = one(objects, "ConfigMap", "jg-joulegate-profile")["data"]
        (folder / "profile.json").write_text(data["profile.json"])
        text = one(objects, "ConfigMap", "jg-joulegate-config")["data"]["gateway.yaml"]
        self.servers = []
        for number in range(MOST):
            port = free_port()
            host = f"{name}-{number}.{name}.llm.svc.cluster.local:8000"
            assert host in text
            text = text.replace(host, f"127.0.0.1:{port}")
            argv = ("backend", MODEL, "--simulate", "--speed=4", f"--seed={number}")
            self.servers.append(_joulegate(folder, f"{MODEL}-{number}", port, *argv))
        (folder / "gateway.yaml").write_text(text)
        config = str(folder / "gateway.yaml")
        self.gateway = _joulegate(folder, "gateway", free_port(), "serve", "--config", config)
        self.prometheus = Labelled(folder, [self.gateway.url.removeprefix("http://")])
        # It is asked over the time of this test.
        spec = json.loads(
            json.dumps(one(objects, "ScaledObject", name)["spec"]).replace("[2m]", "[4s]")
        )
        self.keda = Keda(spec, self.prometheus.url, replicas=1)
        self.running = 0

    def follow(self):
        """Have as many servers as the StatefulSet has replicas, the last one going first."""
        for server in self.servers[self.running : self.keda.replicas]:
            server.start()
        for server in reversed(self.servers[self.keda.replicas : self.running]):
            server.close()
        self.running = self.keda.replicas

    async def live_until(self, what, why, seconds=60.0):
        """Let KEDA look as often as it does, until something is so."""
        deadline = time.monotonic() + seconds
        while not what(await self.look()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds:g} s: {why}; {self.keda.replicas} replicas")
            await asyncio.sleep(self.keda.polling_seconds)

    async def look(self):
        value = await asyncio.to_thread(self.keda.look)
        await asyncio.to_thread(self.follow)
        return value

    def now(self, series):
        return self.prometheus.value(f"sum({series})")


def _joulegate(folder, name, port, *argv):
    whole = [str(Path(sys.executable).with_name("joulegate")), *argv, "--port", str(port)]
    return Server(name, whole, port, folder / f"{name}.log", {})


@contextlib.asynccontextmanager
async def serving(folder):
    cluster = Cluster(folder)
    parts = (cluster.gateway, cluster.prometheus)
    try:
        for part, path in zip(parts, ("/health", "/-/ready"), strict=True):
            part.start()
            await asyncio.to_thread(part.wait_until_up, path, 60)
        yield cluster
    finally:
        for part in (*parts, *cluster.servers):
            part.close()


async def ask(client, **more):
    """Return status and backend of a whole answer."""
    answer = await client.post("/v1/chat/completions", json=ASKED | more)
    return answer.status_code, answer.headers.get("x-joulegate-backend")


async def test_to_none_and_back_under_load_and_never_for_want_of_a_look(tmp_path):
    async with serving(tmp_path) as cluster:
        client = httpx.AsyncClient(base_url=cluster.gateway.url, timeout=120)
        async with client:
            # Nobody asks: none is left, and the gateway stays ready for what it would hold.
            await cluster.live_until(lambda _: cluster.running == 0, "none is left")
            assert (await client.get("/ready")).status_code == 200

            # Three ask and are held, which wakes the first server; all three are answered.
            asking = [asyncio.create_task(ask(client)) for _ in range(3)]
            await cluster.live_until(lambda value: value and value >= 3, "they are seen waiting")
            await cluster.live_until(
                lambda _: all(task.done() for task in asking), "they are answered"
            )
            assert [task.result()[0] for task in asking] == [200] * 3
            assert 1 <= cluster.running <= MOST

            # What is shorter than a scrape is in flight at none, and its model in use all the same.
            for _ in range(4):
                assert (await ask(client, max_tokens=1))[0] == 200
                await asyncio.sleep(1)
            await cluster.live_until(
                lambda value: (
                    value
                    and not cluster.now("joulegate_backend_inflight")
                    and not cluster.now("joulegate_requests_held")
                ),
                "what is over counts for a while",
            )
            assert cluster.running >= 1

            # Many at once: as many servers as that takes, and none of them idle.
            ended, backends, statuses = asyncio.Event(), set(), set()

            async def keep_asking():
                while not ended.is_set():
                    status, backend = await ask(client)
                    statuses.add(status)
                    backends.add(backend)

            clients = [asyncio.create_task(keep_asking()) for _ in range(EACH * MOST)]
            await cluster.live_until(lambda _: len(backends) == MOST, "all servers answer")
            assert cluster.running == MOST

            # Prometheus loses the gateway: that is no calm, and its servers stay.
            ended.set()
            await asyncio.gather(*clients)
            assert statuses == {200}
            await asyncio.to_thread(cluster.gateway.kill)
            await cluster.live_until(lambda value: value is None, "the trigger says so")
            until = time.monotonic() + 2 * cluster.keda.cooldown_seconds
            await cluster.live_until(lambda _: time.monotonic() > until, "the cooldown is over")
            assert cluster.running == MOST

            # It is back, and nobody asks: none is left again.
            cluster.gateway.start()
            await asyncio.to_thread(cluster.gateway.wait_until_up, "/ready", 60)
            await cluster.live_until(lambda _: cluster.running == 0, "none is left again")


def test_the_trigger_asks_one_figure_of_the_release_s_own_model():
    """Whatever else is in the same Prometheus."""
    objects = rendered(VALUES)
    (trigger,) = one(objects, "ScaledObject", f"jg-joulegate-{MODEL}")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    selectors = re.findall(r"joulegate_\w+\{([^}]*)\}", query)
    assert len(selectors) == 3
    wanted = {f'{name}="{value}"' for name, value in (LABELS | {"model": MODEL}).items()}
    assert all(set(each.split(", ")) == wanted for each in selectors)
