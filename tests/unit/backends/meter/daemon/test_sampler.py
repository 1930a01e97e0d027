"""What a sampler tells of its counters: every joule once, and a hole where it cannot know."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon import sampler as samplers
from backends.meter.daemon.sampler import CounterSampler
from backends.meter.sources.source import EnergyDevice, SourceError
from tests.unit.backends.meter.daemon.counters import Counters, opened, turn

WRAP = 1_000_000_000


def test_an_interval_waits_for_all_its_counters():
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    sampler = opened(source)
    source.values["a"] = 5
    source.now_us += 50_000
    sampler.read_counters()
    assert sampler.take_events() == []
    source.values["a"], source.values["b"] = 7, 11
    source.now_us += 50_000
    sampler.read_counters()
    (news,) = sampler.take_events()
    assert (news.kind, news.at_us, news.microjoules) == ("advance", 1_100_000, {"a": 7, "b": 11})


def test_a_counter_that_stands_still_holds_nobody_up():
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    source.values["a"] = lambda now_us: now_us
    sampler = opened(source)
    told = turn(source, sampler, 10)
    assert 9 <= len(told) <= 10
    assert sampler.is_standing_still(sampler.counters[1])
    assert not sampler.is_standing_still(sampler.counters[0])
    assert all(news.microjoules["b"] == 0 for news in told)


def test_a_counter_that_wraps_goes_on():
    source = Counters(EnergyDevice("a", "A", WRAP))
    source.values["a"] = WRAP - 10
    sampler = opened(source)
    source.values["a"] = 15
    source.now_us += 50_000
    sampler.read_counters()
    (news,) = sampler.take_events()
    assert news.microjoules == {"a": 25}


@pytest.mark.parametrize(
    ("wraps_at", "last"),
    [(None, WRAP - 10), (1 << 62, WRAP)],
    ids=["one that does not wrap", "a step that no device could make"],
)
def test_a_counter_that_is_reset_leaves_a_hole(wraps_at, last):
    source = Counters(EnergyDevice("a", "A", wraps_at))
    source.values["a"] = last
    sampler = opened(source)
    source.values["a"] = 15
    source.now_us += 50_000
    sampler.read_counters()
    lost, start = sampler.take_events()
    assert (lost.kind, lost.at_us) == ("lost", 1_000_000)
    assert (start.kind, start.at_us) == ("start", 1_050_000)
    source.values["a"] = 40
    source.now_us += 50_000
    sampler.read_counters()
    (news,) = sampler.take_events()
    assert news.microjoules == {"a": 25}


def test_a_lost_device_is_counted_and_the_hole_begins_where_knowledge_ends():
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    sampler = opened(source)
    source.values, source.now_us = {"a": 3, "b": 4}, 1_050_000
    sampler.read_counters()
    source.values["a"], source.now_us = 6, 1_100_000
    sampler.read_counters()
    source.broken, source.now_us = "b", 1_150_000
    with pytest.raises(SourceError) as caught:
        sampler.read_counters()
    sampler.record_failure(str(caught.value))
    advance, lost = sampler.take_events()
    assert advance.at_us == 1_050_000
    assert (lost.kind, lost.at_us) == ("lost", 1_050_000)
    assert sampler.errors == {"b": 1}
    assert sampler.last_error == "b is lost"
    assert sampler.counters == ()
    source.broken = None
    sampler.open_source()
    (start,) = sampler.take_events()
    assert (start.kind, start.at_us) == ("start", 1_150_000)
    assert sampler.last_error is None


def test_a_source_that_does_not_open_is_counted_for_its_ledger():
    source = Counters()
    source.broken = "open"
    sampler = CounterSampler("l", source, clock=source.clock)
    for times in (1, 2):
        with pytest.raises(SourceError):
            sampler.open_source()
        sampler.record_failure("no driver")
        assert sampler.errors == {"l": times}
    assert sampler.take_events() == []


@pytest.mark.parametrize("flapping", [False, True])
def test_news_that_nobody_takes_is_given_up_and_leaves_a_hole(monkeypatch, flapping):
    monkeypatch.setattr(samplers, "_MOST_NEWS", 5)
    source = Counters()
    source.values["a"] = lambda now_us: now_us * 100
    sampler = opened(source)
    for _ in range(6):
        source.now_us += 50_000
        if flapping:
            sampler.record_failure("it went away")
            sampler.open_source()
        else:
            sampler.read_counters()
        assert len(sampler._events) <= 5
    news = sampler.take_events()
    assert news[0].kind in ({"lost", "start"} if flapping else {"start"})
    assert [one.kind for one in news if one.kind == "advance"] == []
    assert news[-1].at_us == source.now_us
    source.now_us += 50_000
    sampler.read_counters()
    (one,) = sampler.take_events()
    assert one.microjoules == {"a": 5_000_000}


@given(
    st.lists(
        st.tuples(st.integers(1_000, 3_000_000), st.integers(0, 10**9), st.integers(0, 10**9)),
        max_size=40,
    )
)
def test_nothing_is_lost_or_told_twice(steps):
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    sampler = opened(source)
    told = {"a": 0, "b": 0}
    last_us = source.now_us
    for wait_us, a, b in steps:
        source.now_us += wait_us
        source.values["a"] += a
        source.values["b"] += b
        sampler.read_counters()
        for news in sampler.take_events():
            assert news.at_us > last_us
            last_us = news.at_us
            for device, microjoules in news.microjoules.items():
                assert microjoules >= 0
                told[device] += microjoules
        untold = {c.device.id: c.unclosed_microjoules for c in sampler.counters}
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
    sampler = CounterSampler("l", source, back_off_seconds=(0.001, 0.002))
    sampler.start_thread()
    assert well.wait(20)
    sampler.stop_thread()
    assert sampler.errors == {"l": 2}
    assert next(news.kind for news in sampler.take_events()) == "start"
