"""What holds for all schedules: conservation, any order, settled once, the formula."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.meter.ledger.ledger import EnergyLedger
from backends.meter.ledger.settled import SettledRequest

MS = 1_000
S = 1_000_000
FAR = 10_000 * S
PROPERTY = settings(deadline=None, max_examples=600)

gateways = st.sampled_from(["g1", "g2"])
backends = st.sampled_from(["b1", "b2"])
keys = st.tuples(gateways, st.integers(1, 2))
ages = st.integers(-200 * MS, 3 * S) | st.integers(0, 200 * S)
small = st.integers(0, 300)
energies = st.integers(0, 10**9) | st.just(0) | st.integers(0, 10**17)
maybe = st.none() | small
events = st.one_of(
    st.tuples(
        st.just("begin_request"), keys, ages, backends, small, st.integers(0, 10**8), st.booleans()
    ),
    st.tuples(st.just("record_progress"), keys, ages, small),
    st.tuples(
        st.just("end_request"), keys, ages, small, maybe, maybe, st.none() | st.integers(0, 5 * S)
    ),
)
batches = st.lists(events, max_size=9)
waits = st.integers(0, 400 * MS) | st.integers(0, 5 * S) | st.integers(0, 150 * S)
others = st.one_of(
    st.tuples(st.just("advance_counter"), energies),
    st.tuples(st.just("advance_counter"), energies),
    st.tuples(st.just("lose_counter")),
    st.tuples(st.just("start_counter")),
    st.tuples(st.just("vanished"), gateways),
    st.tuples(st.just("counted"), backends, st.integers(0, 10**5), st.integers(0, 10**5)),
)
rounds = st.tuples(waits, st.lists(others, max_size=3), batches)
schedules = st.lists(rounds, max_size=8)


def tell(ledger: EnergyLedger, now_us: int, batch) -> None:
    for kind, key, age, *rest in batch:
        getattr(ledger, kind)(key, now_us - age, *rest)


def check(ledger: EnergyLedger, settled: list[SettledRequest]) -> None:
    """The books agree with what lies about."""
    assert ledger.unsettled_microjoules == sum(span.microjoules for span in ledger._intervals)
    open_microjoules = [request.microjoules for request in ledger._requests.values()]
    given_out = [one.microjoules for one in settled] + open_microjoules
    assert min(given_out, default=0) >= 0
    assert sum(given_out) == ledger.attributed_microjoules
    assert ledger.idle_microjoules >= 0
    assert min(ledger.other_by_backend.values(), default=0) >= 0
    total = (
        ledger.attributed_microjoules
        + ledger.idle_microjoules
        + ledger.other_microjoules
        + ledger.unsettled_microjoules
    )
    assert total == ledger.advanced_microjoules


def play(schedule, *, order=None, bound=4, **options) -> tuple[EnergyLedger, list[SettledRequest]]:
    ledger = EnergyLedger("gpu", **options)
    settled: list[SettledRequest] = []
    now_us = 0
    advanced = 0
    for wait_us, calls, batch in schedule:
        now_us += wait_us
        for name, *args in calls:
            if name == "counted":
                ledger.record_token_counts(args[0], now_us, *args[1:])
            elif name == "vanished":
                ledger.end_gateway_requests(args[0], now_us)
            else:
                getattr(ledger, name)(now_us, *args)
                advanced += sum(args)
            check(ledger, settled)
        tell(ledger, now_us, batch if order is None else order(batch))
        assert ledger.open_requests <= bound
        settled += ledger.settle_requests(now_us)
        check(ledger, settled)
    now_us += 200 * S
    ledger.advance_counter(now_us, 12_345)
    ledger.end_gateway_requests("g1", now_us)
    ledger.end_gateway_requests("g2", now_us)
    ledger.advance_counter(now_us + S, 0)
    settled += ledger.settle_requests(now_us + FAR)
    check(ledger, settled)
    assert ledger.advanced_microjoules == advanced + 12_345
    assert ledger.unsettled_microjoules == 0
    return ledger, settled


@pytest.mark.slow
@PROPERTY
@given(schedules)
def test_whatever_comes_every_microjoule_is_in_one_place_and_every_request_settles_once(schedule):
    ledger, settled = play(schedule)
    assert ledger.open_requests == 0
    assert len({one.key for one in settled}) == len(settled)
    begun = {event[1] for _, _, batch in schedule for event in batch if event[0] == "begin_request"}
    assert {one.key for one in settled} == begun


@pytest.mark.slow
@settings(deadline=None, max_examples=400)
@given(schedules, st.randoms(use_true_random=False))
def test_the_order_of_a_batch_and_repeated_events_change_nothing(schedule, random):
    def shuffled(batch):
        more = [*batch, *random.choices(batch, k=len(batch) // 2)] if batch else []
        random.shuffle(more)
        return more

    ledger, settled = play(schedule)
    again, settled_again = play(schedule, order=shuffled)
    assert Counter(settled_again) == Counter(settled)
    assert (again.attributed_microjoules, again.idle_microjoules, again.other_microjoules) == (
        ledger.attributed_microjoules,
        ledger.idle_microjoules,
        ledger.other_microjoules,
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(schedules)
def test_memory_is_bounded_whatever_comes(schedule):
    ledger, _ = play(schedule, max_requests=2, bound=2)
    assert len(ledger._settled_keys) <= 2


# A whole request: when it began and, after that, the gaps to its events with their new tokens.
wholes = st.tuples(
    st.integers(0, 3 * S),
    st.integers(1, 100),
    st.integers(0, 10**8),
    st.lists(st.tuples(st.integers(1, S), st.integers(0, 50)), min_size=1, max_size=5),
)
counters = st.lists(st.tuples(st.integers(1, S), st.integers(0, 10**8)), min_size=1, max_size=30)


def left_by_idling(spans, requests):
    """Of each interval what was spent while anybody was there, by the power of idle intervals."""
    times = [(begun, points[-1][0]) for begun, _, _, points in requests]
    powers: list[float] = []
    for start, end, microjoules in spans:
        there = [(a, b) for a, b in times if a < end and b > start]
        if not there:
            powers.append(microjoules / (end - start))
        elif len(powers) >= 3:
            edges = sorted({start, end, *(t for pair in there for t in pair if start < t < end)})
            empty = sum(
                until - since
                for since, until in pairwise(edges)
                if not any(a <= since and until <= b for a, b in there)
            )
            yield start, end, microjoules - min(microjoules, int(min(powers[-20:]) * empty))
            continue
        yield start, end, microjoules


def by_the_book(spans, requests) -> list[Fraction]:
    """The formula as the contract has it, interval by interval, in fractions."""
    got = [Fraction(0)] * len(requests)
    for start, end, microjoules in left_by_idling(spans, requests):
        prompts = []
        decodes = []
        for begun, _, prefill, points in requests:
            first = points[0][0]
            overlap = max(0, min(end, first) - max(start, begun))
            prompts.append(Fraction(prefill * overlap, first - begun))
            decode = Fraction(0)
            for (since, before), (until, after) in pairwise([(begun, 0), *points]):
                overlap = max(0, min(end, until) - max(start, since))
                decode += Fraction((after - before) * overlap, until - since)
            decodes.append(decode)
        prompt, decode = sum(prompts), sum(decodes)
        taken = min(int(prompt), microjoules) if decode else microjoules
        for n in range(len(requests)):
            if prompt:
                got[n] += taken * prompts[n] / prompt
            if decode:
                got[n] += (microjoules - (taken if prompt else 0)) * decodes[n] / decode
    return got


@pytest.mark.slow
@settings(deadline=None, max_examples=800)
@given(counters, st.lists(wholes, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_each_gets_what_the_contract_says(counter, drawn, random):
    ledger = EnergyLedger("gpu")
    ledger.start_counter(0)
    spans = []
    at_us = 0
    for width_us, microjoules in counter:
        spans.append((at_us, at_us + width_us, microjoules))
        at_us += width_us
        ledger.advance_counter(at_us, microjoules)
    requests = []
    calls = []
    for n, (begun, prompt, prefill, gaps) in enumerate(drawn):
        # One backend each: where they share one, prefills begin in turn.
        calls.append((ledger.begin_request, ("g", n), begun, f"b{n}", prompt, prefill + 1, False))
        points = []
        time_us = begun
        tokens = 0
        for gap_us, more in gaps:
            time_us += gap_us
            tokens += more
            points.append((time_us, tokens))
            calls.append((ledger.record_progress, ("g", n), time_us, tokens))
        calls[-1] = (ledger.end_request, *calls[-1][1:])
        requests.append((begun, prompt, prefill + 1, points))
    random.shuffle(calls)
    for call, *args in calls:
        call(*args)
    last_us = max(at_us, *(points[-1][0] for *_, points in requests)) + 1
    ledger.advance_counter(last_us, 0)
    settled = {one.key[1]: one.microjoules for one in ledger.settle_requests(FAR)}
    for n, share in enumerate(by_the_book(spans, requests)):
        assert abs(settled[n] - share) <= 2 * len(requests) * len(spans) + 1e-9 * float(share)
