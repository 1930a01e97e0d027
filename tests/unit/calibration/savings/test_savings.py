"""A switchback in virtual time: how often the interval holds the truth, and what is a saving.

Forty blocks of 20 minutes, one gateway scraped each minute. The truth is a generator of requests,
not the analysis: traffic swells and ebbs over the day, requests cost what their lengths and the
moment's load make of them, idle power is spent meanwhile, and some joules come late.
"""

import math

import numpy as np
import pytest

from calibration.recalibrate.prometheus import Series
from calibration.savings.arms import COUNTERS, read_blocks, read_switchback
from calibration.savings.savings import compare, pair_up
from gateway.scheduling.switchback import ARMS, TREATMENT, Switchback

BLOCK = 1200.0
BLOCKS = 40
SCRAPE = 60.0
START = 1_000_000 * BLOCK
RUNS = 100


def serve(seed, saving):
    """The series of one run; the treatment spends so much less, idle included."""
    rng = np.random.default_rng(seed)
    switchback = Switchback("e", seed, BLOCK, 60.0)
    times = np.arange(START, START + BLOCKS * BLOCK + 1, SCRAPE)
    shown = {}

    def count(name, arm, at, amounts, **more):
        place = np.minimum(np.searchsorted(times, at), len(times) - 1)
        steps = np.bincount(place, amounts, minlength=len(times))
        key = (name, arm, *more.items())
        shown[key] = shown.get(key, np.zeros(len(times))) + steps

    minutes = len(times) - 1
    noise = np.zeros(minutes)
    for k in range(1, minutes):  # a load that wanders
        noise[k] = 0.95 * noise[k - 1] + rng.normal(0.0, 0.1)
    day = 1.0 + 0.6 * np.sin(np.arange(minutes) / minutes * 2 * math.pi + rng.uniform(0, 6))
    counts = rng.poisson(20.0 * day * np.exp(noise))
    begins = np.repeat(times[:-1], counts) + rng.uniform(0.0, SCRAPE, counts.sum())
    load = np.repeat(counts, counts) / 20.0
    o = np.maximum(1.0, np.rint(rng.lognormal(5.0, 0.8, len(begins))))
    joules = (30.0 + o * (1.0 + 2.0 / (1.0 + load))) * rng.lognormal(-0.02, 0.2, len(begins))
    seconds = 0.1 + 0.02 * o * (1.0 + 0.05 * load)
    arms = draw_arms(switchback, begins)
    clock = np.arange(START, START + BLOCKS * BLOCK, 1.0)
    for arm in ARMS:
        mine = arms == arm
        factor = 1.0 - saving if arm == TREATMENT else 1.0
        at = begins[mine] + seconds[mine]
        count("requests", arm, at, np.ones(mine.sum()))
        count("tokens", arm, at, o[mine], type="completion")
        count("seconds", arm, at, seconds[mine])
        count("accuracy", arm, at, np.full(mine.sum(), 0.7))
        late = at + rng.exponential(3.0, mine.sum())
        count("joules", arm, late, factor * joules[mine], kind="request")
        spent = draw_arms(switchback, clock) == arm
        count("joules", arm, clock[spent], np.full(spent.sum(), factor * 75.0), kind="idle")
    series = {name: [] for name in COUNTERS}
    for (name, arm, *more), steps in shown.items():
        labels = {"experiment": "e", "arm": arm, **dict(more)}
        values = [(float(t), repr(float(v))) for t, v in zip(times, np.cumsum(steps), strict=True)]
        series[name].append(Series(labels, values))
    return switchback, series


def draw_arms(switchback, times):
    """The arm that each moment counts for, "" within a washout."""
    first = switchback.block_at(START)
    by_block = np.array([switchback.arm_of(first + k) for k in range(BLOCKS + 1)])
    arms = by_block[(times // BLOCK).astype(int) - first]
    return np.where(times % BLOCK < switchback.washout_seconds, "", arms)


def analyse(seed, saving):
    switchback, series = serve(seed, saving)
    blocks = read_blocks(switchback, series, START, START + BLOCKS * BLOCK)
    assert len(blocks) == BLOCKS
    return {one.name: one for one in compare(pair_up(blocks))}


@pytest.mark.slow
@pytest.mark.parametrize("saving", [0.0, 0.05, 0.2])
def test_intervals_hold_the_truth_and_savings_are_called_what_they_are(saving):
    held = {"joules_per_1000_tokens": 0, "joules_per_answer": 0}
    called = dict.fromkeys(held, 0)
    for seed in range(RUNS):
        found = analyse(seed, saving)
        for name in held:
            one = found[name]
            held[name] += one.low <= -saving <= one.high
            called[name] += one.verdict == "less"
    print(saving, held, called)
    for name, count in held.items():
        assert count >= 90
        if saving == 0.0:
            assert called[name] <= 5
        if saving == 0.2:
            assert called[name] >= 90


def test_latency_lengths_and_accuracy_stand_beside_it():
    found = analyse(3, 0.2)
    assert found["accuracy"].baseline == pytest.approx(0.7)
    assert found["accuracy"].change == pytest.approx(0.0, abs=1e-9)
    assert found["seconds_per_answer"].low < 0.0 < found["seconds_per_answer"].high
    assert found["tokens_per_answer"].baseline == pytest.approx(204.0, rel=0.05)


def test_few_blocks_tell_nothing():
    switchback, series = serve(1, 0.2)
    blocks = read_blocks(switchback, series, START, START + 8 * BLOCK)
    found = {one.name: one for one in compare(pair_up(blocks))}
    assert found["joules_per_answer"].low is None
    assert found["joules_per_answer"].verdict == "too few blocks to tell"


def test_a_restart_loses_only_what_no_scrape_saw():
    switchback, series = serve(1, 0.0)
    whole = read_blocks(switchback, series, START, START + BLOCKS * BLOCK)
    at = 200
    broken = {
        name: [
            Series(
                one.metric,
                [
                    (t, v if k < at else repr(float(v) - float(one.values[at][1])))
                    for k, (t, v) in enumerate(one.values)
                ],
            )
            for one in found
        ]
        for name, found in series.items()
    }
    again = read_blocks(switchback, broken, START, START + BLOCKS * BLOCK)
    for one, other in zip(whole, again, strict=True):
        if one.number != switchback.block_at(START + at * SCRAPE - 1):
            assert other.added["requests"] == pytest.approx(one.added["requests"], abs=40)


def test_gateways_that_disagree_on_the_experiment():
    labels = {"experiment": "e", "seed": "1", "block_seconds": "1200", "washout_seconds": "60",
              "baseline": "hybrid"}  # fmt: skip
    one = Series({**labels, "instance": "a"}, [(0.0, "1")])
    two = Series({**labels, "seed": "2", "instance": "b"}, [(0.0, "1")])
    assert read_switchback([one], None) == {"e": (Switchback("e", 1, 1200.0, 60.0), "hybrid")}
    assert read_switchback([one], "other") == {}
    with pytest.raises(ValueError, match="gateways disagree"):
        read_switchback([one, two], "e")
