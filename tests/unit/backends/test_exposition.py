"""Reading a backend's /metrics page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from backends import exposition
from backends.meter.daemon import token_poller as tokens
from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.engine import BatchingEngine
from backends.simulator.metrics import SimulatorMetrics

# Two engines of one vLLM, and what else such a page has.
PAGE = b"""# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 120.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 3.0e+02 1700000000000
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_by_source_total{engine="0",source="local_compute"} 100
vllm:prompt_tokens_by_source_total{engine="0",source="local_cache_hit"} 20
vllm:generation_tokens_total{engine="0",model_name="a \\"} b{\\" c"} 7
vllm:generation_tokens_total_per_iteration 99
plain 5
odd NaN
odd{a="1"} 4
odd{a="2"} +Inf
odd{a="3"} words
windows 6\r
"""


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("vllm:prompt_tokens_total", {}, 420.0),
        ("vllm:prompt_tokens_total", {"engine": "1"}, 300.0),
        ("vllm:prompt_tokens_total", {"engine": "2"}, None),
        ("vllm:prompt_tokens_total", {"engine": "0", "model_name": "m"}, 120.0),
        ("vllm:prompt_tokens_total", {"name": "m"}, None),
        ("vllm:prompt_tokens_by_source_total", {"source": "local_compute"}, 100.0),
        ("vllm:generation_tokens_total", {}, 7.0),
        ("plain", {}, 5.0),
        ("plain", {"a": "1"}, None),
        ("odd", {}, 4.0),
        ("windows", {}, 6.0),
        ("absent", {}, None),
        ("prompt_tokens_total", {}, None),
    ],
)
def test_what_a_page_says(name, labels, expected):
    assert exposition.sum_series(PAGE, name, **labels) == expected


@given(st.dictionaries(st.text(), st.integers(0, 10**12), min_size=1, max_size=8))
def test_any_label_that_prometheus_can_write_is_read(values):
    registry = CollectorRegistry()
    counter = Counter("c", "c\nc_total 77", ["label"], registry=registry)
    for label, value in values.items():
        counter.labels(label).inc(value)
    assert exposition.sum_series(generate_latest(registry), "c_total") == sum(values.values())


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(page):
    assert exposition.sum_series(page + b"\n", "vllm:prompt_tokens_total") is None


def test_prompt_tokens_that_a_cache_spared_do_not_count():
    assert tokens.parse_token_counts(PAGE) == (100, 7, 0, 420)


def test_an_old_vllm_does_not_say_where_prompt_tokens_came_from():
    old = b"vllm:prompt_tokens_total 50.0\nvllm:generation_tokens_total 60.0\n"
    assert tokens.parse_token_counts(old) == (50, 60, 0, 50)


@pytest.mark.parametrize("page", [b"", b"<html></html>", b"vllm:prompt_tokens_total 1\n"])
def test_a_page_without_the_counters(page):
    assert tokens.parse_token_counts(page) is None


def test_the_simulators_page():
    truth = CostModel(
        SimulatedCost("additive", (0.0, 0.0, 0.0)), SimulatedCost("additive", (0.0, 0.0, 0.0))
    )
    metrics = SimulatorMetrics('a"} 1\n', 1.0)
    metrics.prompt_tokens, metrics.generation_tokens = 11, 13
    page = metrics.render_text(BatchingEngine(truth, 0)).encode()
    assert tokens.parse_token_counts(page) == (11, 13, 0, 11)
