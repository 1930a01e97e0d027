"""Pages of metrics: the format that was asked for, and only what is known."""

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from backends.metrics_page import encode_metrics_in_turns, encode_metrics_page

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def make_registry():
    registry = CollectorRegistry()
    Counter("a_total", "A", registry=registry).inc(3)
    gauge = Gauge("b", "B", ("l",), registry=registry)
    gauge.labels("known").set(1.5)
    gauge.labels("unknown").set(math.nan)
    gauge.labels("endless").set(math.inf)
    Gauge("c", "C", registry=registry).set(math.nan)
    Histogram("d_seconds", "D", registry=registry).observe(0.2)
    return registry


def test_what_is_not_a_number_is_left_out_and_the_rest_stays():
    page, kind = encode_metrics_page(make_registry(), "")
    lines = page.decode().splitlines()
    assert kind.startswith("text/plain; version=0.0.4")
    assert 'b{l="known"} 1.5' in lines
    assert 'b{l="endless"} +Inf' in lines
    assert "# TYPE b gauge" in lines
    assert "a_total 3.0" in lines
    assert "nan" not in page.decode().lower()
    assert not [line for line in lines if " c " in f"{line} "]


def test_openmetrics_where_asked_for():
    page, kind = encode_metrics_page(make_registry(), OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith(b"# EOF\n")
    found = {family.name: family.type for family in text_string_to_metric_families(page.decode())}
    assert found == {"a": "counter", "b": "gauge", "d_seconds": "histogram"}


def test_anything_else_is_answered_in_the_text_format():
    for accept in ("*/*", "text/html", "application/json", "text/plain;version=0.0.4"):
        assert encode_metrics_page(make_registry(), accept)[1].startswith("text/plain")


def test_a_sum_of_signed_values_is_no_counter_in_openmetrics():
    class Signed:
        def collect(self):
            family = CounterMetricFamily("s", "S", labels=["l"])
            family.add_metric(["a"], 2.0)
            family.add_metric(["b"], -0.5)
            return [family]

    page, _ = encode_metrics_page(Signed(), OPENMETRICS)
    (family,) = text_string_to_metric_families(page.decode())
    assert (family.name, family.type) == ("s_total", "unknown")
    assert {sample.labels["l"]: sample.value for sample in family.samples} == {"a": 2, "b": -0.5}
    plain, _ = encode_metrics_page(Signed(), "")
    assert b"# TYPE s_total counter" in plain
    assert b's_total{l="b"} -0.5' in plain


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_a_page_made_in_turns_is_the_same_page(accept):
    registry = make_registry()
    many = Counter("many", "More than one part", ["n"], registry=registry)
    slow = Histogram("slow", "Likewise", ["n"], registry=registry, buckets=(1.0, 2.0))
    for n in range(600):
        many.labels(str(n)).inc(n)
        slow.labels(str(n)).observe(n)
    assert await encode_metrics_in_turns(registry, accept) == encode_metrics_page(registry, accept)
