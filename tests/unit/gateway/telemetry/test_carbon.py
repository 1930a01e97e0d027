"""Joules to grams of CO2e: fixed, by a file that changes, by a Prometheus that may be gone."""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from backends.client import BackendClient
from gateway import config
from gateway.structured import ConfigError
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.grid_query import GridQuery, GridQueryError
from tests.manual_clock import ManualClock
from tests.waiting import until

KWH = 3.6e6
AT_8 = datetime(2026, 11, 20, 8, 59, 59, tzinfo=UTC).timestamp()


def written(path, text, mtime_ns):
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def test_a_fixed_intensity():
    assert CarbonIntensity(400.0).to_grams(KWH / 4, AT_8) == 100.0
    assert CarbonIntensity(0.0).to_grams(KWH, AT_8) == 0.0


async def test_a_changed_file_is_read_again_and_the_last_good_one_stays(tmp_path, caplog):
    path = written(tmp_path / "grid.csv", "8,100", 1)
    carbon = CarbonIntensity(path=path)
    assert carbon.to_grams(KWH, AT_8) == 100.0
    written(path, "8,300", 2)
    await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 300.0
    written(path, "8,abc", 3)
    with caplog.at_level(logging.ERROR):
        await carbon.refresh()
        await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 300.0
    assert caplog.text.count("line 1") == 1
    path.unlink()
    await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 300.0
    written(path, "8,500", 4)
    await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 500.0


async def test_it_looks_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.telemetry.carbon._LOOK_SECONDS", 0.01)
    path = written(tmp_path / "grid.csv", "8,100", 1)
    carbon = CarbonIntensity(path=path)
    task = asyncio.create_task(carbon.run())
    try:
        written(path, "8,300", 2)
        await until(lambda: carbon.to_grams(KWH, AT_8) == 300.0, "the change", 30)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_bad_file_to_begin_with_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        CarbonIntensity(path=tmp_path / "grid.csv")


class Prometheus:
    """Answers instant queries with `result`, and notes what it was asked."""

    def __init__(self):
        self.result = []
        self.body = None
        self.status = 200
        self.asked = []

    async def query(self, request):
        self.asked.append((request.query["query"], request.headers.get("authorization")))
        body = self.body
        if body is None:
            body = json.dumps({"status": "success", "data": {"result": self.result}})
        return web.Response(text=body, status=self.status, content_type="application/json")


def series(grams, provider="Ember", location="GB"):
    labels = {"provider": provider, "location": location}
    return {"metric": labels, "value": [1.0, str(grams)]}


@pytest.fixture
async def prometheus():
    found = Prometheus()
    app = web.Application()
    app.router.add_get("/prom/api/v1/query", found.query)
    async with TestServer(app) as server, BackendClient(connect_seconds=5) as client:
        found.url = str(server.make_url("/prom"))
        found.client = client
        yield found


async def test_the_intensity_of_a_prometheus(prometheus):
    prometheus.result = [series(212.5)]
    grid = GridQuery(
        prometheus.client, prometheus.url + "/", {"location": 'G"B', "provider": "x"}, token="t"
    )
    clock = ManualClock()
    carbon = CarbonIntensity(grid=grid, clock=clock)
    assert carbon.to_grams(KWH, AT_8) is None
    await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 212.5
    asked = 'grid_intensity_carbon_average{location="G\\"B",provider="x"}'
    assert prometheus.asked == [(asked, "Bearer t")]


async def test_what_was_known_holds_for_an_hour_and_then_the_fixed_one_counts(prometheus, caplog):
    clock = ManualClock()
    carbon = CarbonIntensity(
        400.0, grid=GridQuery(prometheus.client, prometheus.url, {}), clock=clock
    )
    assert carbon.to_grams(KWH, AT_8) == 400.0
    prometheus.result = [series(100)]
    await carbon.refresh()
    assert prometheus.asked == [("grid_intensity_carbon_average", None)]
    prometheus.result = []
    for clock.now in (60.0, 120.0, 3599.0):
        await carbon.refresh()
        assert carbon.to_grams(KWH, AT_8) == 100.0
    clock.now = 3600.0
    assert carbon.to_grams(KWH, AT_8) == 400.0
    assert caplog.text.count("what was last known holds for an hour") == 1
    prometheus.result = [series(150)]
    await carbon.refresh()
    assert carbon.to_grams(KWH, AT_8) == 150.0


async def test_replicas_of_one_exporter_are_averaged(prometheus):
    prometheus.result = [series(100), series(110)]
    grid = GridQuery(prometheus.client, prometheus.url, {})
    assert await grid.fetch_grams_per_kwh() == 105.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"result": []}, "Prometheus has no grid_intensity_carbon_average{location="),
        ({"result": [series(1), series(2, location="DE")]}, "is of 2 grids (DE by Ember, GB by"),
        ({"result": [series("NaN")]}, "which is no grams a kWh"),
        ({"result": [series("+Inf")]}, "which is no grams a kWh"),
        ({"result": [series(-3)]}, "which is no grams a kWh"),
        ({"result": [series(20_000)]}, "which is no grams a kWh"),
        ({"body": "<html>"}, "no answer of Prometheus's API"),
        ({"body": "{}"}, "no answer of Prometheus's API"),
        ({"body": "{}", "status": 401}, "Prometheus says 401"),
        ({"body": '{"status": "error", "error": "bad_data"}'}, "Prometheus says 200: bad_data"),
    ],
)
async def test_what_is_no_intensity_is_refused(prometheus, answer, said):
    for name, value in answer.items():
        setattr(prometheus, name, value)
    grid = GridQuery(prometheus.client, prometheus.url, {"location": "GB"})
    with pytest.raises(GridQueryError) as caught:
        await grid.fetch_grams_per_kwh()
    assert said in str(caught.value)


async def test_a_prometheus_that_is_not_there():
    async with BackendClient(connect_seconds=5) as client:
        grid = GridQuery(client, "http://127.0.0.1:1", {})
        with pytest.raises(GridQueryError, match="cannot be asked"):
            await grid.fetch_grams_per_kwh()


@pytest.mark.parametrize(
    "carbon",
    [
        "{grams_per_kwh: -1}",
        "{grams_per_kwh: 10001}",
        "{grams_per_kwh: lots}",
        "{grams_per_kwh: 100, file: grid.csv}",
        "{file: grid.csv, prometheus: {url: 'http://p'}}",
        "{prometheus: {url: 'http://p/api/v1/query'}}",
        "{prometheus: {location: GB}}",
        "{prometheus: {url: 'http://p', token: a, token_file: b}}",
        "{prometheus: {url: 'http://p', token_file: none}}",
        "{grams: 100}",
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path, carbon):
    path = tmp_path / "gateway.yaml"
    models = "models: [{name: m, context: 10, backends: [{url: 'http://a'}]}]"
    path.write_text(f"{models}\ncarbon: {carbon}\n")
    with pytest.raises(ConfigError, match="carbon"):
        config.load_config(path)


def test_paths_start_at_the_configs_folder(tmp_path):
    path = tmp_path / "gateway.yaml"
    models = "models: [{name: m, context: 10, backends: [{url: 'http://a'}]}]"
    path.write_text(f"{models}\ncarbon: {{file: grid.csv}}\n")
    assert config.load_config(path).carbon.file == str(tmp_path / "grid.csv")
    (tmp_path / "token").write_text("t0ken\n")
    path.write_text(
        f"{models}\ncarbon:\n  grams_per_kwh: 300\n"
        "  prometheus: {url: 'http://p:9090', location: GB, token_file: token}\n"
    )
    grid = config.load_config(path).carbon.prometheus
    assert (grid.token, grid.labels) == ("t0ken", {"location": "GB"})
