"""Regression sums through a real Prometheus: what comes back is what the raw rows would give.

Three instances, each with two restarts, and a million requests; every scrape is answered with one
batch of rows more than the last, so it is known which rows lie between which scrapes.
"""

import contextlib
import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from statsmodels.regression.linear_model import OLS

from calibration.recalibrate import prometheus as api
from calibration.recalibrate.moments import ClusterMoments
from calibration.recalibrate.sums import SUMS_METRIC
from calibration.recalibrate.variants import build_base_columns
from calibration.recalibrate.window_sums import gather_sums
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.regression_terms import COSTS, WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow
from tests.e2e.prometheus import NEEDED, exporter, started

pytestmark = NEEDED

NAME = ("phi-3-mini", "phi-3-mini")
ROWS = 1_000_000
INSTANCES = 3
BATCHES = 24
"""Scrapes among which an instance's rows are divided."""
RESTARTS = (3, 6)
"""Early, so that what the last window is a difference of is large."""
LAST, EACH = 10, 20
"""Batches after those, and rows in each: over one instance a window of 200 rows."""
FORMS = {
    ("n", "i", "o", "io"): RegressionForm.INTERACTION,
    ("n", "i", "o", "io", "z"): RegressionForm.LOAD,
}
COLUMNS = {"interaction": ("n", "i", "o", "io"), "load": ("n", "i", "o", "io", "z")}


def rows_of(count, rng):
    """(i, o, r, microseconds, microjoules) of so many requests."""
    i = rng.integers(8, 3_000, count)
    o = np.clip(rng.lognormal(5, 0.8, count), 1, 2_000).astype(np.int64)
    r = rng.poisson(rng.choice([0, 3, 16, 48], count))
    seconds = 0.05 + 1e-5 * i + 0.01 * o + 2e-7 * i * o + 2e-4 * o * r
    joules = 3 + 0.004 * i + 0.2 * o + 1e-5 * i * o + 2.5 * o / (1 + r)
    noise = rng.lognormal(0, 0.1, (2, count))
    micro = np.rint(np.stack([seconds, joules]) * noise * 1e6).astype(np.int64)
    return np.stack([i, o, r, *micro])


class Instance:
    """A gateway as Prometheus sees it, each scrape of which finds another batch of rows."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        cuts = np.linspace(0, ROWS // INSTANCES, BATCHES + 1).astype(int)
        sizes = [0, *np.diff(cuts), *[EACH] * LAST]
        ends = np.cumsum(sizes)
        rows = rows_of(int(ends[-1]), rng)
        self.batches = [rows[:, end - size : end] for end, size in zip(ends, sizes, strict=True)]
        self.pages = list(self._pages())
        self.scraped = 0

    def _pages(self):
        """Yield the page after each batch, of a process that began anew at each restart."""
        for number, batch in enumerate(self.batches):
            if number in (0, *RESTARTS):
                sums, registry = OlsSums([NAME]), CollectorRegistry()
                registry.register(SumsCollector(sums.snapshot_sums))
            for i, o, r, us, uj in batch.T.tolist():
                # A live prediction that is right but for noise and weighs all rows alike.
                said = [WeighedPrediction(max(0.01, cost / 1e6), 1e5) for cost in (us, uj)]
                sums.add_row(*NAME, SumsRow(i, o, 0, r, us, uj, None, True, *said, r))
            yield generate_latest(registry)

    def page(self):
        self.scraped += 1
        return self.pages[min(self.scraped, len(self.pages)) - 1]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """(Prometheus, its instances by their label) once every batch has been scraped."""
    with contextlib.ExitStack() as stack:
        instances = {}
        for seed in range(INSTANCES):
            one = Instance(seed)
            instances[stack.enter_context(exporter(one.page))] = one
        folder = tmp_path_factory.mktemp("prometheus")
        server = stack.enter_context(started(folder, {"gateway": list(instances)}, "500ms"))
        deadline = time.monotonic() + 120
        count = f'count_over_time({SUMS_METRIC}{{basis="costs",quantity="joules",term="n"}}[5m])'
        while not (found := server.query(count)) or (
            len(found) < INSTANCES or min(n for _, ((_, n),) in found) < len(one.batches)
        ):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        yield server, instances


def times_of(server, instance):
    """When each of an instance's scrapes was, by Prometheus."""
    selector = (
        f'{SUMS_METRIC}{{basis="costs",quantity="joules",term="n",instance="{instance}"}}[5m]'
    )
    ((_, samples),) = server.query(selector)
    return [at for at, _ in samples]


def raw(instances, times, begin, end, quantity):
    """Rows, costs and clusters of what was added between scrapes from `begin` to `end`."""
    kept, groups = [], []
    for name, one in instances.items():
        inside = [k for k, at in enumerate(times[name]) if begin <= at <= end]
        for k in inside[1:]:
            if k < len(one.batches):
                kept.append(one.batches[k])
                groups += [len(kept)] * one.batches[k].shape[1]
    i, o, r, us, uj = np.concatenate(kept, axis=1).astype(float)
    z, y = (o * r, us) if quantity == "seconds" else (o / (1 + r), uj)
    return {"n": np.ones_like(i), "i": i, "o": o, "io": i * o, "z": z}, y / 1e6, groups


def compare(block, columns, exact, tolerance):
    table, y, cluster = exact
    solved = (
        ClusterMoments.from_block(block)
        .combine_columns(build_base_columns(FORMS[columns]))
        .solve_least_squares()
    )
    fitted = OLS(y, np.column_stack([table[name] for name in columns])).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}
    )
    assert solved.n == len(y)
    assert solved.coefficients == pytest.approx(fitted.params, rel=tolerance, abs=0)
    assert solved.standard_errors == pytest.approx(fitted.bse, rel=tolerance, abs=0)
    assert solved.r2 == pytest.approx(fitted.rsquared, rel=tolerance)


def read_sums(server, window, end, quantity):
    with api.PrometheusClient(server.url) as prometheus:
        return gather_sums(prometheus, window, end, "").blocks[NAME][COSTS, quantity]


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_all_requests_give_what_their_rows_give(scraped, quantity, form):
    server, instances = scraped
    times = {name: times_of(server, name) for name in instances}
    end = max(one[-1] for one in times.values())
    block = read_sums(server, "5m", end, quantity)
    assert block.faults == ()
    assert (block.instances, block.resets) == (INSTANCES, INSTANCES * len(RESTARTS))
    exact = raw(instances, times, end - 300, end, quantity)
    assert len(exact[1]) >= ROWS
    compare(block, COLUMNS[form], exact, 1e-9)


@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_a_window_of_two_hundred_requests_gives_what_they_give(scraped, quantity):
    server, instances = scraped
    times = {name: times_of(server, name) for name in instances}
    end = max(one[len(instances[name].batches) - 1] for name, one in times.items())
    # From where the last instance had been through its large batches.
    begin = max(one[BATCHES] for one in times.values())
    window = f"{round((end - begin) * 1000)}ms"
    block = read_sums(server, window, end, quantity)
    assert block.faults == ()
    exact = raw(instances, times, begin, end, quantity)
    assert 200 <= len(exact[1]) <= INSTANCES * LAST * EACH
    compare(block, COLUMNS["load"], exact, 1e-8)
