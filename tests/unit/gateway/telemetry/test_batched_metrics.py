"""Batched series show what plain ones would, whoever reads them and whenever they are published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.telemetry.batched_metrics import BatchedCounter, BatchedHistogram, publish_batch

BUCKETS = (0.1, 1.0, 10.0)
AMOUNTS = st.floats(0.0, 100.0) | st.sampled_from(BUCKETS)


def make(counter, histogram):
    registry = CollectorRegistry()
    return (
        registry,
        counter("c", "c", ("a",), registry=registry).labels("x"),
        histogram("h", "h", ("a",), registry=registry, buckets=BUCKETS).labels("x"),
    )


@given(st.lists(st.lists(AMOUNTS)), st.booleans())
def test_they_add_up_as_plain_ones_do(batches, publishes):
    plain, batched = make(Counter, Histogram), make(BatchedCounter, BatchedHistogram)
    for batch in batches:
        for amount in batch:
            for _, counter, histogram in (plain, batched):
                counter.inc(round(amount))
                histogram.observe(round(amount, 1))
        if publishes:
            publish_batch()
    pages = [
        {
            line.rpartition(" ")[0]: pytest.approx(float(line.rpartition(" ")[2]))
            for line in generate_latest(registry).decode().splitlines()
            if not line.startswith("#") and "_created" not in line
        }
        for registry, *_ in (plain, batched)
    ]
    assert pages[0] == pages[1]
    publish_batch()


def test_a_reader_takes_nothing_from_a_later_batch():
    registry, counter, histogram = make(BatchedCounter, BatchedHistogram)
    for _ in range(3):
        counter.inc()
        histogram.observe(0.5)
        generate_latest(registry)
        publish_batch()
    assert registry.get_sample_value("c_total", {"a": "x"}) == 3
    assert registry.get_sample_value("h_count", {"a": "x"}) == 3


def test_a_counter_never_goes_down():
    _, counter, _ = make(BatchedCounter, BatchedHistogram)
    with pytest.raises(ValueError, match="non-negative"):
        counter.inc(-1)
