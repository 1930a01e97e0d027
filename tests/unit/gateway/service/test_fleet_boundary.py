"""The boundary that a configuration asks for."""

from random import Random

import pytest
from prometheus_client import CollectorRegistry

from gateway.boundary_config import BoundaryConfig
from gateway.commands import serve
from gateway.commands.serve_options import ServeOptions
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.handover import CONFIG, LEVEL
from gateway.service import fleet
from gateway.telemetry import WORKERS
from gateway.telemetry.metrics import GatewayMetrics

MODEL = ModelConfig("m", 100, (BackendConfig("http://a:1"), BackendConfig("http://a:2")))


def make(boundary):
    config = GatewayConfig((MODEL,), boundary=boundary)
    deployments = fleet.build_deployments(config, Random(1))
    metrics = GatewayMetrics(CollectorRegistry(), shared=False)
    return fleet.make_boundary(config, deployments, metrics, None)


def test_nothing_configured_is_no_boundary():
    assert make(BoundaryConfig()) is None


@pytest.mark.parametrize(("workers", "watts"), [("1", 100.0), ("4", 25.0)])
def test_each_worker_has_its_share_of_a_server(monkeypatch, workers, watts):
    monkeypatch.setenv(WORKERS, workers)
    (host,) = make(BoundaryConfig(100.0))._hosts
    clock = host.clock
    begun = clock._at
    mark = clock.begin_request(begun)
    assert clock.end_request(mark, begun + 2.0) == pytest.approx(2.0 * watts)


def test_serving_says_how_many_workers_there_are(monkeypatch, tmp_path):
    for name in (WORKERS, CONFIG, LEVEL):
        monkeypatch.setenv(name, "")
    path = tmp_path / "gateway.yaml"
    path.write_text("models: [{name: phi-3-mini, context: 99, backends: [{url: 'http://a:1'}]}]")
    monkeypatch.setattr(serve, "log_to_stderr", lambda _: None)
    monkeypatch.setattr(serve, "open_listener", refuse_address)
    serve.run(ServeOptions(path, host="h", port=1, workers=3))
    assert serve.os.environ[WORKERS] == "3"


def refuse_address(*_):
    raise OSError(98, "in use")
