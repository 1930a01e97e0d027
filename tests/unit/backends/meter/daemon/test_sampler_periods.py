"""When a sampler reads: just after its counters are updated, and no oftener than it must."""

from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.daemon.counter import MICRO
from backends.meter.sources.source import EnergyDevice
from tests.unit.backends.meter.daemon.counters import Counters, opened, turn, updated_every


@pytest.mark.parametrize("period_us", [20_000, 100_000, 1_000_000])
def test_the_period_is_found(period_us):
    source = Counters()
    source.values["a"] = updated_every(period_us)
    sampler = opened(source)
    assert sampler.period_us is None
    turn(source, sampler, 8)
    assert sampler.period_us == pytest.approx(period_us, abs=5_000)


def test_the_slowest_counters_period_counts():
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    source.values = {"a": updated_every(20_000), "b": updated_every(100_000, phase_us=7_000)}
    sampler = opened(source)
    turn(source, sampler, 3)
    assert sampler.period_us == pytest.approx(100_000, abs=5_000)


@pytest.mark.parametrize("period_us", [100_000, 1_000_000])
def test_an_interval_ends_when_its_counter_was_updated(period_us):
    source = Counters()
    source.values["a"] = updated_every(period_us, phase_us=33_333)
    sampler = opened(source)
    turn(source, sampler, 8)
    before = source.reads
    told = turn(source, sampler, 20)
    assert all((news.at_us - 33_333) % period_us < 3_000 for news in told)
    assert [one.microjoules["a"] for one in told] == [300 * period_us] * len(told)
    assert len(told) == pytest.approx(20 * MICRO / period_us, abs=1)
    assert source.reads - before <= 20 * 30  # no costlier than reading blindly


@given(st.integers(60_000, 1_200_000), st.randoms(use_true_random=False))
def test_updates_are_followed_though_their_period_is_not_quite_known(period_us, rng):
    source = Counters()
    updates = [1_000_000]
    while updates[-1] < 60 * MICRO:
        updates.append(updates[-1] + period_us + rng.randint(-1_000, 1_000))
    source.values["a"] = lambda now_us: bisect_right(updates, now_us)
    sampler = opened(source)
    turn(source, sampler, 25)
    before = source.reads
    told = turn(source, sampler, 25)
    assert source.reads - before <= 25 * 20 + 10 * len(told)
    assert all(news.microjoules == {"a": 1} for news in told)
    late_us = [news.at_us - updates[bisect_right(updates, news.at_us) - 1] for news in told]
    assert sum(late <= 4_000 for late in late_us) >= 0.9 * len(told)


def test_a_fast_counter_is_read_as_often_as_asked():
    source = Counters()
    source.values["a"] = lambda now_us: now_us * 100
    sampler = opened(source, hz=20)
    turn(source, sampler, 3)
    told = turn(source, sampler, 10)
    assert len(told) == 200
    assert {after.at_us - one.at_us for one, after in pairwise(told)} == {50_000}


def test_a_counter_that_slows_down_is_still_read_at_the_asked_rate():
    source = Counters()
    source.values["a"] = updated_every(100_000)
    sampler = opened(source)
    turn(source, sampler, 3)
    source.values["a"] = source.values["a"](source.now_us)  # it stands still now
    before = source.reads
    turn(source, sampler, 10)
    assert source.reads - before <= 230
    assert sampler.is_standing_still(sampler.counters[0])


def test_a_coarse_source_is_asked_once_a_second_and_is_not_probed():
    source = Counters()
    source.coarse = True
    source.values["a"] = updated_every(30 * MICRO)
    sampler = opened(source)
    told = turn(source, sampler, 200)
    assert source.reads <= 202
    assert not sampler.is_standing_still(sampler.counters[0])
    assert sampler.period_us == 30 * MICRO
    assert [news.microjoules["a"] for news in told] == [30 * MICRO * 300] * len(told)
    assert len(told) in {6, 7}


def test_looking_for_one_that_stands_still_costs_no_more():
    source = Counters(EnergyDevice("a", "A"), EnergyDevice("b", "B"))
    source.values = {"a": updated_every(100_000), "b": updated_every(100_000)}
    sampler = opened(source)
    turn(source, sampler, 3)
    source.values["b"] = source.values["b"](source.now_us)
    before = source.reads
    turn(source, sampler, 10)
    assert source.reads - before <= 2 * 10 * 40
