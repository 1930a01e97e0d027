"""Sums that cannot be, or cannot tell, through a real Prometheus: refused, and why.

One page has a model for each way to be poisoned, and a sound one beside them, from the same rows.
"""

import json
import re
import subprocess
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from calibration.recalibrate.sums import SUMS_METRIC
from gateway import profile as profiles
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COST_TERMS, WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow
from tests.e2e.circle import JOULEGATE
from tests.e2e.prometheus import NEEDED, exporter, started

pytestmark = NEEDED

SCRAPES = 16
EACH = 40
LIVE = {
    "accuracy": {"default": 0.7},
    "seconds": {"form": "interaction", "coefficients": [0.05, 0.0004, 0.02, 0.0]},
    "joules": {"form": "interaction", "coefficients": [20.0, 0.05, 1.5, 0.0]},
}
COSTS = [
    CostFunction(CostQuantity(name), RegressionForm.INTERACTION, tuple(LIVE[name]["coefficients"]))
    for name in ("seconds", "joules")
]
REFUSED = {
    "negative": ("negative", r"term y is -"),
    "stuck": ("stuck", r"term wo2 stood still over \d+ requests while others moved"),
    "constant": ("lengths", r"prompts are all of about 100 tokens"),
    "few": ("requests", r"50, at least 100 needed"),
}
MODELS = ("sound", *REFUSED)


def pages():
    """What the gateway shows, scrape after scrape."""
    rng = np.random.default_rng(3)
    sums = OlsSums((name, name) for name in MODELS)
    frozen = {}

    def poisoned():
        total = sums.snapshot_sums()
        for part in total["negative", "negative"][:2]:
            part[COST_TERMS.index("y")] *= -1
        for place, part in enumerate(total["stuck", "stuck"][:2]):
            at = COST_TERMS.index("wo2")
            part[at] = frozen.setdefault(place, part[at]) if part[0] > 3 * EACH else part[at]
        return total

    registry = CollectorRegistry()
    registry.register(SumsCollector(poisoned))
    yield generate_latest(registry)
    rows = 0
    for _ in range(SCRAPES):
        running = int(rng.integers(0, 32))
        for _ in range(EACH):
            i, o = int(rng.integers(5, 400)), int(rng.integers(5, 200))
            noise = rng.lognormal(0.0, 0.05)
            seconds = (0.05 + 0.0004 * i + 0.02 * o + 0.0003 * o * running) * noise
            joules = (20.0 + 0.05 * i + 0.8 * o + 4.0 * o / (1 + running)) * noise
            for name in MODELS:
                if name != "few" or rows < 50:
                    tokens_in = 100 if name == "constant" else i
                    said = (WeighedPrediction.of(cost, tokens_in, o, running, 0) for cost in COSTS)
                    micro = (round(seconds * 1e6), round(joules * 1e6))
                    sums.add_row(
                        name,
                        name,
                        SumsRow(tokens_in, o, 0, running, *micro, i, False, *said, running),
                    )
            rows += 1
        yield generate_latest(registry)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A Prometheus that has scraped every page."""
    shown = list(pages())
    left = iter(shown)
    with (
        exporter(lambda: next(left, shown[-1])) as target,
        started(tmp_path_factory.mktemp("prometheus"), {"gateway": [target]}, "250ms") as server,
    ):
        sound = f'{SUMS_METRIC}{{model="sound",basis="costs",quantity="joules",term="n"}}'
        deadline = time.monotonic() + 60
        while server.value(f"count_over_time({sound}[5m])") < len(shown):
            assert time.monotonic() < deadline, server.tail()
            time.sleep(0.1)
        yield server


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "live.json"
    path.write_text(json.dumps({"version": 1, "models": dict.fromkeys(MODELS, LIVE)}))
    return path


def recalibrate(prometheus, live, *options):
    done = subprocess.run(
        [
            JOULEGATE, "recalibrate", "--prometheus", prometheus.url, "--window", "5m",
            "--profile", str(live), "--block", "250ms", "--json", *options,
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_each_poison_is_refused_with_its_reason_and_the_sound_one_adopted(prometheus, live):
    before = profiles.load_profile(live)
    code, report = recalibrate(prometheus, live)
    assert code == 1
    after = profiles.load_profile(live)
    assert report["profile_version"] == after.version != before.version
    told = {one["model"]: one for one in report["models"]}
    assert told.keys() == set(MODELS)
    assert {name for name, one in told.items() if one["adopted"]} == {"sound"}
    for name in MODELS:
        assert (after.get_model(name) == before.get_model(name)) is (name != "sound")
    for name, (gate, why) in REFUSED.items():
        for part in told[name]["parts"][:2]:
            assert not part["adopted"]
            refusals = [one for one in part["refused"] if one["gate"] == gate]
            assert refusals, part["refused"]
            assert any(re.search(why, one["text"]) for one in refusals)
            if gate in ("requests", "lengths"):
                assert refusals[0]["number"] < refusals[0]["bound"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_poisoned_model_alone_leaves_the_file_untouched(prometheus, live, name):
    before = live.read_bytes()
    code, report = recalibrate(prometheus, live, "--model", name)
    assert code == 1
    assert report["out"] is None
    assert live.read_bytes() == before
    assert list(live.parent.iterdir()) == [live]
