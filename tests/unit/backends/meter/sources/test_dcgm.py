"""DCGM's exporter through Prometheus's HTTP API."""

import sys

import httpx
import pytest
import respx

from backends.meter.sources.dcgm import SERIES, DcgmSource
from backends.meter.sources.source import SourceError
from tests.manual_clock import ManualClock

URL = "http://prometheus:9090"


def sample(millijoules="1000", uuid="GPU-a", **labels):
    metric = {"__name__": SERIES, "UUID": uuid, "gpu": "0", "modelName": "NVIDIA A100"}
    return {"metric": metric | {"Hostname": "one"} | labels, "value": [1.5, millijoules]}


def answer(*samples):
    data = {"resultType": "vector", "result": list(samples)}
    return httpx.Response(200, json={"status": "success", "data": data})


@pytest.fixture
def prometheus():
    with respx.mock(base_url=URL) as mock:
        yield mock.get("/api/v1/query", params={"query": SERIES})


def opened(prometheus, *samples, devices=()):
    prometheus.return_value = answer(*samples)
    clock = ManualClock()
    source = DcgmSource(URL + "/", devices, clock=clock)
    return source, clock, source.open()


def test_millijoules_of_each_gpu(prometheus):
    source, _, devices = opened(
        prometheus, sample("123456789012", "GPU-b", gpu="1"), sample("4.5e3", "GPU-a")
    )
    assert [(d.id, d.name, d.wraps_at_microjoules) for d in devices] == [
        ("GPU-a", "NVIDIA A100", None),
        ("GPU-b", "NVIDIA A100", None),
    ]
    assert [source.read(d) for d in devices] == [4_500_000, 123_456_789_012_000]
    assert source.coarse
    assert source.kind == "dcgm"


def test_readings_together_share_a_query_and_later_ones_do_not(prometheus):
    source, clock, devices = opened(prometheus, sample("1", "GPU-a"), sample("2", "GPU-b"))
    for device in devices:
        source.read(device)
    assert prometheus.call_count == 1
    clock.now = 1.0
    prometheus.return_value = answer(sample("5", "GPU-a"), sample("6", "GPU-b"))
    assert [source.read(d) for d in devices] == [5000, 6000]
    assert prometheus.call_count == 2


def test_a_gpu_with_several_series_counts_once(prometheus):
    source, _, devices = opened(
        prometheus, sample("7", GPU_I_ID="1"), sample("9", GPU_I_ID="2"), sample("8", pod="x")
    )
    assert [source.read(d) for d in devices] == [9000]


@pytest.mark.parametrize("name", ["GPU-b", "1"])
def test_by_uuid_or_number(prometheus, name):
    samples = sample(), sample("2", "GPU-b", gpu="1")
    _, _, devices = opened(prometheus, *samples, devices=[name])
    assert [d.id for d in devices] == ["GPU-b"]


def test_gpus_of_other_hosts_are_not_taken_unasked(prometheus):
    samples = sample(), sample("2", "GPU-b", Hostname="two")
    with pytest.raises(SourceError, match=r"several hosts; .* GPU-a on one, GPU-b on two"):
        opened(prometheus, *samples)
    with pytest.raises(SourceError, match="2 GPUs are 0; there are"):
        opened(prometheus, *samples, devices=["0"])
    with pytest.raises(SourceError, match="0 GPUs are GPU-c"):
        opened(prometheus, *samples, devices=["GPU-c"])
    _, _, devices = opened(prometheus, *samples, devices=["GPU-b"])
    assert [d.id for d in devices] == ["GPU-b"]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "9223372036854775792", "many"])
def test_values_that_are_none(prometheus, value):
    with pytest.raises(SourceError, match=r"has no DCGM_FI.* does it scrape dcgm-exporter"):
        opened(prometheus, sample(value))


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            httpx.Response(422, json={"status": "error", "errorType": "execution", "error": "no!"}),
            "Prometheus says 422: no!",
        ),
        (httpx.Response(200, text="<html>"), "200: no answer of Prometheus's API"),
        (httpx.Response(200, content=b'{"status": "\xff"}'), "200: no answer of Prometheus's API"),
        (httpx.Response(200, content=b'{"a":' * 9999), "200: no answer of Prometheus's API"),
        (httpx.Response(401, text="who?"), "401: no answer of Prometheus's API"),
        (httpx.Response(200, json={"status": "success"}), "Prometheus says 200"),
        (
            httpx.Response(503, json={"status": "success", "data": {"result": []}}),
            "Prometheus says 503",
        ),
    ],
)
def test_answers_that_are_none(prometheus, response, message):
    prometheus.return_value = response
    with pytest.raises(SourceError, match=message):
        DcgmSource(URL).open()


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_unreachable_and_back(prometheus, error):
    source, clock, (device,) = opened(prometheus, sample())
    clock.now = 1.0
    prometheus.side_effect = error
    with pytest.raises(SourceError, match=f"cannot be asked: {error}"):
        source.read(device)
    prometheus.side_effect = None
    source.open()
    assert source.read(device) == 1_000_000


def test_a_gpu_that_vanishes(prometheus):
    source, clock, (device,) = opened(prometheus, sample())
    clock.now = 1.0
    prometheus.return_value = answer()
    with pytest.raises(SourceError, match=r"no longer has .* of GPU-a"):
        source.read(device)
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.read(device)


@pytest.mark.parametrize("url", ["", "prometheus", "http://", "http://[::1", "ftp://x"])
def test_addresses_that_are_none(url):
    with pytest.raises(SourceError, match="cannot be asked"):
        DcgmSource(url).open()


def test_without_httpx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(SourceError, match=r"pip install '\S*\[meter\]'"):
        DcgmSource(URL).open()
