"""What a sampler tells of its counters: every joule once, and a hole where it cannot know."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon import sampler as samplers
from backends.meter.daemon.sampler import Sampler
from backends.meter.sources.source import Device, SourceError
from tests.unit.backends.meter.daemon.counters import Counters, opened, turn

WRAP = 1_000_000_000


def test_an_interval_waits_for_all_its_counters():
    source = Counters(Device("a", "A"), Device("b", "B"))
    sampler = opened(source)
    source.values["a"] = 5
    source.now_us += 50_000
    sampler.read()
    assert sampler.take() == []
    source.values["a"], source.values["b"] = 7, 11
    source.now_us += 50_000
    sampler.read()
    (news,) = sampler.take()
    assert (news.kind, news.at_us, news.microjoules) == ("advance", 1_100_000, {"a": 7, "b": 11})


def test_a_counter_that_stands_still_holds_nobody_up():
    source = Counters(Device("a", "A"), Device("b", "B"))
    source.values["a"] = lambda now_us: now_us
    sampler = opened(source)
    told = turn(source, sampler, 10)
    assert 9 <= len(told) <= 10
    assert sampler.still(sampler.counters[1])
    assert not sampler.still(sampler.counters[0])
    assert all(news.microjoules["b"] == 0 for news in told)


def test_a_counter_that_wraps_goes_on():
    source = Counters(Device("a", "A", WRAP))
    source.values["a"] = WRAP - 10
    sampler = opened(source)
    source.values["a"] = 15
    source.now_us += 50_000
    sampler.read()
    (news,) = sampler.take()
    assert news.microjoules == {"a": 25}


@pytest.mark.parametrize(
    ("wraps_at", "last"),
    [(None, WRAP - 10), (1 << 62, WRAP)],
    ids=["one that does not wrap", "a step that no device could make"],
)
def test_a_counter_that_is_reset_leaves_a_hole(wraps_at, last):
    source = Counters(Device("a", "A", wraps_at))
    source.values["a"] = last
    sampler = opened(source)
    source.values["a"] = 15
    source.now_us += 50_000
    sampler.read()
    lost, start = sampler.take()
    assert (lost.kind, lost.at_us) == ("lost", 1_000_000)
    assert (start.kind, start.at_us) == ("start", 1_050_000)
    source.values["a"] = 40
    source.now_us += 50_000
    sampler.read()
    (news,) = sampler.take()
    assert news.microjoules == {"a": 25}


def test_a_lost_device_is_counted_and_the_hole_begins_where_knowledge_ends():
    source = Counters(Device("a", "A"), Device("b", "B"))
    sampler = opened(source)
    source.values, source.now_us = {"a": 3, "b": 4}, 1_050_000
    sampler.read()
    source.values["a"], source.now_us = 6, 1_100_000
    sampler.read()
    source.broken, source.now_us = "b", 1_150_000
    with pytest.raises(SourceError) as caught:
        sampler.read()
    sampler.fail(str(caught.value))
    advance, lost = sampler.take()
    assert advance.at_us == 1_050_000
    assert (lost.kind, lost.at_us) == ("lost", 1_050_000)
    assert sampler.errors == {"b": 1}
    assert sampler.last_error == "b is lost"
    assert sampler.counters == ()
    source.broken = None
    sampler.open()
    (start,) = sampler.take()
    assert (start.kind, start.at_us) == ("start", 1_150_000)
    assert sampler.last_error is None


def test_a_source_that_does_not_open_is_counted_for_its_ledger():
    source = Counters()
    source.broken = "open"
    sampler = Sampler("l", source, clock=source.clock)
    for times in (1, 2):
        with pytest.raises(SourceError):
            sampler.open()
        sampler.fail("no driver")
        assert sampler.errors == {"l": times}
    assert sampler.take() == []


@pytest.mark.parametrize("flapping", [False, True])
def test_news_that_nobody_takes_is_given_up_and_leaves_a_hole(monkeypatch, flapping):
    monkeypatch.setattr(samplers, "_MOST_NEWS", 5)
    source = Counters()
    source.values["a"] = lambda now_us: now_us * 100
    sampler = opened(source)
    for _ in range(6):
        source.now_us += 50_000
        if flapping:
            sampler.fail("it went away")
            sampler.open()
        else:
            sampler.read()
        assert len(sampler._news) <= 5
    news = sampler.take()
    assert news[0].kind in ({"lost", "start"} if flapping else {"start"})
    assert [one.kind for one in news if one.kind == "advance"] == []
    assert news[-1].at_us == source.now_us
    source.now_us += 50_000
    sampler.read()
    (one,) = sampler.take()
    assert one.microjoules == {"a": 5_000_000}


@given(
    st.lists(
        st.tuples(st.integers(1_000, 3_000_000), st.integers(0, 10**9), st.integers(0, 10**9)),
        max_size=40,
    )
)
def test_nothing_is_lost_or_told_twice(steps):
    source = Counters(Device("a", "A"), Device("b", "B"))
    sampler = opened(source)
    told = {"a": 0, "b": 0}
    last_us = source.now_us
    for wait_us, a, b in steps:
        source.now_us += wait_us
        source.values["a"] += a
        source.values["b"] += b
        sampler.read()
        for news in sampler.take():
            assert news.at_us > last_us
            last_us = news.at_us
            for device, microjoules in news.microjoules.items():
                assert microjoules >= 0
                told[device] += microjoules
        untold = {c.device.id: c.unclosed for c in sampler.counters}
        assert {d: told[d] + untold[d] for d in told} == source.values


def test_the_thread_outlives_whatever_a_source_throws():
    well = threading.Event()

    class Fragile(Counters):
        troubles = iter([SourceError("busy"), RuntimeError("a driver's own")])

        def open(self):
            for trouble in self.troubles:
                raise trouble
            return super().open()

        def read(self, device):
            if self.reads > 3:
                well.set()
            return super().read(device)

    source = Fragile()
    sampler = Sampler("l", source, back_off_seconds=(0.001, 0.002))
    sampler.start()
    assert well.wait(20)
    sampler.stop()
    assert sampler.errors == {"l": 2}
    assert next(news.kind for news in sampler.take()) == "start"
