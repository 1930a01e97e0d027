"""The circle end to end: traffic, sums, Prometheus, recalibration, and what it is worth.

Raw rows come from the gateways' decision logs, which are written in the order in which requests
enter the sums: what Prometheus last saw of a process that ended are its first n rows.
"""

import asyncio
import json
import time
from itertools import pairwise

import numpy as np
import pytest
from statsmodels.regression.linear_model import WLS

from calibration.recalibrate import prometheus as api
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.sums import SUMS_METRIC
from calibration.recalibrate.variants import build_base_columns
from calibration.recalibrate.window_sums import gather_sums
from gateway import profile as profiles
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, WeighedPrediction
from tests.e2e.circle import TRUTH, Traffic, circle, settled
from tests.e2e.prometheus import NEEDED
from tests.e2e.watch import eventually

pytestmark = NEEDED

PATH = (
    (0.0, 2), (0.04, 6), (0.25, 16), (0.46, 6), (0.5, 2), (0.54, 6), (0.75, 16), (0.96, 6), (1.0, 2)
)  # fmt: skip
"""How many at once at each model of each gateway, after which share of the requests."""
REQUESTS = 20_000
FRESH = 3_000
CLOSE = {"joules": 0.03, "seconds": 0.06}
"""Median error beyond that of the best `load` form there is for these very requests: the engine's
steps are physical, and no form is what it computes by. Joules are held to the engine's, seconds to
those that passed on this machine, which may be busy."""
LOAD = {"seconds": "mean_running", "joules": "harmonic_running"}
LEARNT = ("exclusive", "apportioned")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The circle after its 20,000 requests, amid which one gateway was restarted."""
    with circle(tmp_path_factory.mktemp("circle")) as made:
        count = f'count({SUMS_METRIC}{{basis="costs",quantity="joules",term="n"}})'
        while made.prometheus.value(count) < len(made.gateways) * len(TRUTH):
            time.sleep(0.1)
        asyncio.run(_traffic(made))
        settled(made, REQUESTS)
        yield made


async def _traffic(made):
    traffic = Traffic(made.gateways, 1)
    sending = asyncio.create_task(traffic.send(REQUESTS, PATH))
    await eventually(lambda: len(traffic.answered) > REQUESTS / 2, 200)
    await asyncio.to_thread(made.restart, 1)
    assert len(traffic.answered) < REQUESTS
    await sending
    assert len(traffic.answered) == REQUESTS
    assert traffic.failed == 0


def raw(made, model, quantity):
    """(columns, costs, clusters) of what Prometheus has seen, out of the decision logs."""
    selector = f'{SUMS_METRIC}{{basis="costs",quantity="{quantity}",term="n",model="{model}"}}[1h]'
    shown = {
        labels["instance"]: [n for _, n in samples]
        for labels, samples in made.prometheus.query(selector)
    }
    live = getattr(profiles.load_profile(made.profile).get_model(model), quantity).to_cost_function(
        CostQuantity(quantity)
    )
    table, costs, weights, groups = [], [], [], []
    for place, server in enumerate(made.gateways):
        lives = [[0.0]]
        for before, now in pairwise(shown[server.url.removeprefix("http://")]):
            if now < before:
                lives.append([0.0])
            lives[-1].append(now)
        assert len(lives) == len(made.logs[place])
        for process, scrapes in enumerate(lives):
            rows = [
                row
                for row in made.rows(place, process)
                if row["model"] == model
                and row["code"] == 200
                and (quantity == "seconds" or row["observed"]["method"] in LEARNT)
            ]
            for number, row in enumerate(rows[: int(scrapes[-1])]):
                i, o = row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"]
                r, cached = row[LOAD[quantity]], row["usage"]["cached_tokens"] or 0
                z = round(o * r, 6) if quantity == "seconds" else round(o / (1 + r), 9)
                table.append([1, i - cached, o, i * o, z])
                said = WeighedPrediction.of(live, i, o, r, cached)
                observed = row["observed"]["joules" if quantity == "joules" else "serving_seconds"]
                # As the sums have them: whole microseconds or microjoules, weights in 1e-15.
                predicted = round(said.value * 1e6)
                costs.append(min(max(round(observed * 1e6), predicted // 5), 5 * predicted) / 1e6)
                weights.append(round(1e15 / said.weighed**2) / 1e15)
                groups.append((place, process, int(np.searchsorted(scrapes, number + 1))))
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    clusters = [numbers[group] for group in groups]
    return np.array(table), np.array(costs), np.array(weights), clusters


def fit_best(rows, true, quantity):
    """The relative errors of the `load` form that is fitted to what these requests truly cost."""
    i, o, r = (
        np.array([pick(row) for row in rows], dtype=float)
        for pick in (
            lambda row: row["usage"]["prompt_tokens"],
            lambda row: row["usage"]["completion_tokens"],
            lambda row: row[LOAD[quantity]],
        )
    )
    z = o * r if quantity == "seconds" else o / (1.0 + r)
    columns = np.column_stack([np.ones(len(rows)), i, o, i * o, z]) / true[:, None]
    scale = np.sqrt((columns**2).mean(axis=0))
    found = np.linalg.lstsq(columns / scale, np.ones(len(rows)), rcond=None)[0]
    return np.abs(columns / scale @ found - 1.0)


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
@pytest.mark.parametrize("model", TRUTH)
def test_the_sums_give_what_statsmodels_gives_on_the_raw_rows(served, model, quantity):
    with api.PrometheusClient(served.prometheus.url) as prometheus:
        window = gather_sums(prometheus, "1h", time.time(), "")
    assert window.warnings == ()
    block = window.blocks[model, model][COSTS, quantity]
    assert (block.faults, block.instances, block.resets) == ((), 2, 1)
    table, costs, weights, clusters = raw(served, model, quantity)
    assert block.n == len(costs) > REQUESTS / 3
    solved = (
        ClusterMoments.from_block(block)
        .combine_columns(build_base_columns(RegressionForm.LOAD))
        .solve_least_squares()
    )
    fitted = WLS(costs, table, weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    assert solved.clusters == len(set(clusters))
    # A coefficient that is nothing but noise has no size of its own to be held to.
    slack = 1e-6 * (np.abs(fitted.params) + fitted.bse)
    assert np.all(np.abs(np.subtract(solved.coefficients, fitted.params)) <= slack)
    assert solved.standard_errors == pytest.approx(fitted.bse, rel=1e-6, abs=0)


def test_recalibration_predicts_what_requests_truly_cost_and_can_be_taken_back(served):
    before = profiles.load_profile(served.profile)
    done = served.run(
        "recalibrate", "--prometheus", served.prometheus.url, "--profile", str(served.profile),
        "--window", "1h", "--block", "5s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    fresh = profiles.load_profile(served.profile)
    assert fresh.version == report["profile_version"] != before.version
    for model in report["models"]:
        assert {part["name"]: part["adopted"] for part in model["parts"]} == dict.fromkeys(
            ("seconds", "joules", "output", "tokens"), True
        )
        entry = fresh.get_model(model["model"])
        assert {entry.seconds.form, entry.joules.form} == {"load"}
        assert entry.provenance["parent_version"] == before.version
        # A prompt's own joules are never refitted.
        assert entry.prefill == before.get_model(model["model"]).prefill

    asyncio.run(in_force(served, fresh.version))
    asked = asyncio.run(asked_again(served))
    settled(served, REQUESTS + FRESH)
    rows = {row["id"]: row for place in range(2) for row in served.rows(place)}
    for model in TRUTH:
        mine = [one for one in asked if one.model == model]
        for name, close in CLOSE.items():
            observed = [rows[one.id]["observed"]["serving_seconds"] for one in mine]
            true = np.array([one.joules for one in mine] if name == "joules" else observed)
            told = [rows[one.id]["compared"]["live"] for one in mine]
            assert {one["profile_version"] for one in told} == {fresh.version}
            off = np.abs(np.array([one[name] for one in told]) / true - 1.0)
            least = fit_best([rows[one.id] for one in mine], true, name)
            print(model, name, f"{np.median(off):.2%}, at best {np.median(least):.2%}")
            assert np.median(off) < np.median(least) + close, name

    done = served.run("recalibrate", "--rollback", "--profile", str(served.profile))
    assert done.returncode == 0, done.stderr
    assert profiles.load_profile(served.profile).version == before.version
    asyncio.run(in_force(served, before.version))


async def in_force(made, version):
    """Wait until both gateways decide by this version."""
    for server in made.gateways:
        await eventually(lambda url=server: f'version="{version}"}} 1.0' in url.get("/metrics"))


async def asked_again(made):
    traffic = Traffic(made.gateways, 2)
    await traffic.send(FRESH, ((0.0, 4), (0.5, 16), (1.0, 4)))
    assert traffic.failed == 0
    return traffic.answered
