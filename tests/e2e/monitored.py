"""Everything that the dashboards watch, under load: simulated backends, meter, gateway, Prometheus.

Two backends a model, processes as users start them. Windows and waits of the rules are shortened in
a copy of helm/rules; thresholds and everything else are as they are shipped.
"""

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backends.vllm.recipes import RECIPES
from gateway.keys_file import KeysFile, make_key, write_keys
from tests.e2e.fleet import running
from tests.e2e.processes import Server, free_port
from tests.e2e.prometheus import Prometheus, exporter

RULES = Path(__file__).parents[2] / "helm/rules"
PHI, MISTRAL, FALCON = RECIPES
SPEED = 10.0
EACH = 2
"""Backends of a model."""
TENANTS = ("chat", "coding", "search")
SHORTENED = {
    r"\[(5|15)m\]": "[15s]",
    r"\[(1|6)h\]": "[20s]",
    r"\[1d\]": "[1m]",
    r"(?m)^ +interval: \w+\n": "",
    r"offset 1d": "offset 10s",
    r"(?m)^( +for): \w+$": r"\1: 2s",
}
_JOULEGATE = str(Path(sys.executable).with_name("joulegate"))
_TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
_SHORT = 512
_LONG = "word " * _SHORT
"""More than Falcon is let read, and still no burden to those that run beside it."""


def rules(folder: Path) -> list[str]:
    """Copy the rules with shorter times; return the files."""
    files = []
    for path in sorted(RULES.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        for pattern, short in SHORTENED.items():
            text = re.sub(pattern, short, text)
        (folder / path.name).write_text(text, encoding="utf-8")
        files.append(str(folder / path.name))
    return files


class Watching(Prometheus):
    """A Prometheus that also evaluates rules."""

    def __init__(self, folder: Path, jobs: dict[str, list[str]]) -> None:
        super().__init__(folder, jobs)
        path = folder / "prometheus.yaml"
        config = yaml.safe_load(path.read_text())
        config["global"]["evaluation_interval"] = "1s"
        path.write_text(yaml.safe_dump(config | {"rule_files": rules(folder)}))

    def api(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer. Raises httpx.HTTPStatusError, as for a bad expression."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60)
        return answer.raise_for_status().json()["data"]

    def alerts(self) -> dict[str, list[dict[str, str]]]:
        """Return the labels of what fires, by the alert's name."""
        firing = [one["labels"] for one in self.api("alerts")["alerts"] if one["state"] == "firing"]
        firing.sort(key=lambda labels: labels["alertname"])
        grouped = itertools.groupby(firing, lambda labels: labels["alertname"])
        return {name: list(group) for name, group in grouped}


class Load:
    """Clients in a thread of their own, until stopped; each asks in a way of its own."""

    def __init__(self, url: str, keys: list[str]) -> None:
        self._url = url
        self._keys = keys
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _all(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=60) as client:
            keys = itertools.cycle(self._keys)
            await asyncio.gather(
                *(
                    self._one(client, pause, model, headers | {"x-api-key": key}, body)
                    for (pause, model, headers, body), key in zip(_ways(), keys, strict=False)
                )
            )

    async def _one(
        self,
        client: httpx.AsyncClient,
        pause: float,
        model: str,
        headers: dict[str, str],
        body: dict[str, Any],
    ) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            content = f"Tell me about {number}. " * (1 + number % 7)
            messages = [{"role": "user", "content": content}]
            asked = {"model": model, "messages": messages} | body
            with contextlib.suppress(httpx.TransportError):
                async with client.stream(
                    "POST", "/v1/chat/completions", json=asked, headers=headers
                ) as answer:
                    async for _ in answer.aiter_raw():
                        # Some clients do not wait for the end.
                        if body.get("stream") and number % 40 == 39:
                            break
            await asyncio.sleep(pause)


def _ways() -> Iterator[tuple[float, str, dict[str, str], dict[str, Any]]]:
    """Yield the seconds between two requests of a client, and what it asks."""
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    for name in (PHI, PHI, PHI, MISTRAL, FALCON):
        yield 0.2, name, {}, stream
    for preset in ("auto", "auto:accuracy", "auto:energy", "auto:time", "auto:balanced"):
        yield 0.5, preset, {}, stream if preset == "auto:time" else {}
    yield 0.5, "auto", {"x-joulegate-policy": "hybrid"}, {}
    yield 1, "auto", {"x-joulegate-min-accuracy": "0.6"}, {}
    yield 1, "auto", {}, {"tools": [_TOOL]}
    yield 4, "auto", {}, {"messages": [{"role": "user", "content": _LONG}], "max_tokens": 8}
    yield 4, "nobody", {}, {}


class Stack:
    """All of it, up; `lie` is what a meter that lies says beyond what it has, and is unwell by."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lie = 0.0
        self.disputes = 0
        self.backends = [
            _joulegate("backend", name, "--simulate", "--speed", f"{SPEED:g}", "--seed", str(seed))(
                folder, f"{name}-{seed}"
            )
            for name in RECIPES
            for seed in range(EACH)
        ]
        self.by_model = {
            name: self.backends[EACH * place : EACH * (place + 1)]
            for place, name in enumerate(RECIPES)
        }
        _dump(folder / "meter.yaml", {"ledgers": [_ledger(one) for one in self.backends]})
        self.meter = _joulegate("meter", "--config", str(folder / "meter.yaml"))(folder, "meter")
        self.profile = folder / "profile.json"
        self.adopt({})
        shutil.copy(self.profile, folder / "shadow.json")
        made = [make_key(tenant) for tenant in TENANTS]
        self.keys = [key for key, _ in made]
        write_keys(folder / "keys.yaml", KeysFile(tuple(entry for _, entry in made)))
        self.configure({})
        self.gateway = _joulegate("serve", "--config", str(folder / "gateway.yaml"))(
            folder, "gateway"
        )

    def _config(self) -> dict[str, Any]:
        return {
            "models": [
                {
                    "name": name,
                    "context": _SHORT if name == FALCON else RECIPES[name].context_tokens,
                    "capabilities": ["chat", *(["tools"] if name != FALCON else [])],
                    "backends": [
                        {"url": one.url, "meter": f"{self.meter.url}/{one.name}"} for one in these
                    ],
                }
                for name, these in self.by_model.items()
            ],
            "profile": "profile.json",
            "shadow": "shadow.json",
            "keys": {"file": "keys.yaml"},
            "carbon": {"grams_per_kwh": 380},
            "boundary": {
                "host_watts": 100,
                "pue": 1.2,
                "price_per_kwh": 0.3,
                "currency": "EUR",
            },
            "health": {
                "probe_seconds": 0.5,
                "eject_after_failures": 3,
                "eject_seconds": 1,
                "eject_max_seconds": 2,
            },
        }

    def adopt(self, factors: dict[tuple[str, str], float]) -> None:
        """Write the profile, with the costs of (model, quantity) times a factor."""
        shipped = resources.files("gateway") / "profiles/published.json"
        tree = json.loads(shipped.read_text(encoding="utf-8"))
        for (name, model), quantity in itertools.product(
            tree["models"].items(), ("seconds", "joules")
        ):
            factor = factors.get((name, quantity), 1.0)
            factor /= SPEED if quantity == "seconds" else 1.0
            cost = model[quantity]
            # The form that has every term, so that no panel of a coefficient stays empty, or at 0.
            cost["form"] = "load"
            known = [factor * value for value in cost["coefficients"]]
            cost["coefficients"] = [*known, 1e-12, 1e-9]
            rows = cost["covariance"]
            sure = [[factor**2 * value for value in row] + [0.0, 0.0] for row in rows]
            unsure = [[0.0] * 3 + [1e-14, 0.0], [0.0] * 4 + [1e-10]]
            cost["covariance"] = sure + unsure
            cost["rmse"] = None
        fresh = self.profile.with_suffix(".new")
        fresh.write_text(json.dumps(tree))
        fresh.replace(self.profile)

    def configure(self, more: dict[str, Any]) -> None:
        """Write gateway.yaml, with these keys more."""
        _dump(self.folder / "gateway.yaml", self._config() | more)

    def fault(self, model: str, faults: dict[str, Any], *, only: int = EACH) -> None:
        """Set these faults and no others on the first `only` backends of a model."""
        for one in self.by_model[model][:only]:
            put = httpx.put(f"{one.url}/simulator/faults", json=faults, timeout=10)
            put.raise_for_status()

    def page(self) -> bytes:
        """Return the page of a meter that counts more, by `lie`, than it accounts for.

        While it lies it can read no counter, and refuses and disputes more with each page; and the
        job that recalibrates has not ended well for longer than a day.
        """
        self.disputes += 5 * (self.lie != 0.0)
        ended_well = time.time() - 90_000.0 * (self.lie != 0.0)
        job = 'namespace="default",cronjob="joulegate-recalibrate"'
        text = (
            f'joulegate_meter_energy_joules_total{{device="0"}} {100 + self.lie}\n'
            'joulegate_meter_attributed_joules_total{ledger="default",kind="idle"} 60\n'
            'joulegate_meter_unsettled_joules{ledger="default"} 40\n'
            f'joulegate_meter_counter_up{{ledger="default"}} {int(self.lie == 0.0)}\n'
            f'joulegate_meter_disputes_total{{ledger="default"}} {self.disputes}\n'
            f'joulegate_meter_refused_events_total{{reason="open_requests"}} {self.disputes}\n'
            f"kube_cronjob_status_last_successful_time{{{job}}} {ended_well}\n"
        )
        return text.encode()


def _joulegate(*argv: str) -> Callable[[Path, str], Server]:
    def made(folder: Path, name: str) -> Server:
        port = free_port()
        whole = [_JOULEGATE, *argv, "--port", str(port)]
        return Server(name, whole, port, folder / f"{name}.log", {})

    return made


def _ledger(one: Server) -> dict[str, Any]:
    backends = [{"url": one.url}]
    return {"name": one.name, "source": "simulator", "url": one.url, "backends": backends}


def _dump(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(tree))


def until(what: Callable[[], Any], why: str, seconds: float = 90) -> Any:
    """Ask until it is true; return it."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {why}")
        time.sleep(0.5)
    return found


@contextlib.contextmanager
def monitored(folder: Path) -> Iterator[tuple[Stack, Watching]]:
    """Start everything and the load; yield it once Prometheus has seen all of it."""
    with contextlib.ExitStack() as stack:
        made = Stack(folder)
        liar = stack.enter_context(exporter(made.page))
        hosts = [server.url.removeprefix("http://") for server in made.backends]
        jobs = {"vllm": hosts, "liar": [liar]}
        jobs["meter"] = [made.meter.url.removeprefix("http://")]
        jobs["gateway"] = [made.gateway.url.removeprefix("http://")]
        prometheus = Watching(folder, jobs)
        stack.enter_context(running(made.backends, at_once=EACH))
        stack.enter_context(running([made.meter]))
        stack.enter_context(running([made.gateway]))
        made.gateway.wait_until_up("/ready", 30)
        prometheus.start()
        stack.callback(prometheus.close)
        prometheus.wait_until_up("/-/ready", 60)
        stack.enter_context(Load(made.gateway.url, made.keys))
        everything = len(hosts) + 3
        until(lambda: prometheus.value("sum(up)") == everything, "all targets are up")
        yield made, prometheus
