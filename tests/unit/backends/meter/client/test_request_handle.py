"""What a meter is told of one request, and what is learnt of its backend."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.meter.client.request_handle import (
    ABANDONED,
    ANSWERING,
    BEGUN,
    ENDED,
    BackendMeter,
    MeteredAttempt,
)
from backends.meter.protocol import RequestBegin, RequestEnd, RequestProgress


class Link:
    """Keeps what is over."""

    def __init__(self):
        self.ended = []

    def begin(self, place, prompt_tokens, prefill_microjoules):
        return MeteredAttempt(7, place, prompt_tokens, prefill_microjoules)

    def over(self, metered):
        self.ended.append(metered)


class Stream:
    chunks = 1


class Heard:
    last = 0.0


@pytest.fixture
def place():
    return BackendMeter(Link(), 3, "a:8000", "")


def begun(place):
    return place.begin(20, 1.5)


def test_it_is_told_in_stages_and_only_what_is_new(place):
    metered = begun(place)
    now = metered.began + 1.0
    assert metered.news(now) == [RequestBegin(7, 1_000_000, 3, 20, 1_500_000, False)]
    metered.told = metered.stage
    assert (metered.stage, metered.news(now)) == (BEGUN, [])
    stream, heard = Stream(), Heard()
    metered.streams(stream, heard)
    heard.last = metered.first
    now = metered.first + 0.5
    assert metered.news(now) == [RequestProgress(7, 500_000, 1)]
    metered.told, metered.told_tokens = metered.stage, 1
    stream.chunks, heard.last = 9, now
    assert metered.news(now + 0.25) == [RequestProgress(7, 250_000, 8)]
    assert (metered.stage, metered.tokens) == (ANSWERING, 8)
    metered.end(tokens=12, prompt_tokens=21, cached_tokens=16)
    assert (metered.stage, place.link.ended) == (ENDED, [metered])
    (end,) = metered.news(metered.ended + 0.125)
    assert end == RequestEnd(7, 125_000, 12, 21, 16, None)


def test_all_of_it_at_once_where_nothing_was_told(place):
    metered = begun(place)
    metered.end(tokens=5, first_share=0.5)
    kinds = [type(event) for event in metered.news(metered.ended)]
    assert kinds == [RequestBegin, RequestProgress, RequestEnd]
    assert metered.first == pytest.approx((metered.began + metered.ended) / 2)


@pytest.mark.parametrize(("share", "place_of_first"), [(-3.0, 0.0), (0.25, 0.25), (7.0, 1.0)])
def test_the_first_token_lies_within_the_answer(place, share, place_of_first):
    metered = begun(place)
    metered.end(tokens=5, first_share=share)
    whole = metered.ended - metered.began
    assert metered.first == pytest.approx(metered.began + place_of_first * whole)


def test_a_refused_request_computed_nothing(place):
    metered = begun(place)
    metered.refused()
    assert metered.news(metered.ended)[-1] == RequestEnd(7, 0, 0, 0, None, None)


def test_a_stream_without_usage_has_the_tokens_of_its_chunks(place):
    metered = begun(place)
    stream = Stream()
    metered.streams(stream, Heard())
    stream.chunks = 41
    metered.end()
    assert metered.tokens == 40


def test_fewer_tokens_than_were_told_are_not_told(place):
    metered = begun(place)
    metered.streams(Stream(), Heard())
    metered.told_tokens = 30
    metered.end(tokens=10)
    assert metered.tokens == 30


def test_what_the_meter_gave_up_is_not_told(place):
    metered = begun(place)
    metered.told = ABANDONED
    metered.end(tokens=3)
    assert metered.news(time.monotonic()) == []


def test_tokens_a_chunk_are_learnt_from_whole_answers(place):
    for _ in range(60):
        place.learn(200, 103)
    assert place.tokens_per_chunk == pytest.approx(2.0, rel=0.01)
    place.learn(1000, 5)  # too short to tell
    assert place.tokens_per_chunk == pytest.approx(2.0, rel=0.01)
    metered = begun(place)
    stream = Stream()
    metered.streams(stream, Heard())
    stream.chunks = 51
    metered.end()
    assert metered.tokens == 100


@pytest.mark.parametrize("odd", [2_000_000_000, 0])
def test_nonsense_about_tokens_a_chunk_is_soon_forgotten(place, odd):
    place.learn(odd, 60)
    for _ in range(50):
        place.learn(57, 60)
    assert place.tokens_per_chunk == pytest.approx(1.0, abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(0, 1 << 31))))
def test_tokens_a_chunk_stay_within_reason(answers):
    place = BackendMeter(Link(), 0, "a", "")
    for tokens, chunks in answers:
        place.learn_chunk_size(tokens, chunks)
        assert 0.1 <= place.tokens_per_chunk <= 64.0


def test_a_cached_prompt_is_remembered(place):
    begun(place).end(tokens=1, cached_tokens=0)
    assert not place.caches
    begun(place).end(tokens=1, cached_tokens=4)
    assert place.caches
    assert begun(place).news(time.monotonic())[0].prompt_may_change


ANYTHING = st.none() | st.integers()


@given(ANYTHING, ANYTHING, ANYTHING, st.none() | st.floats())
def test_no_count_makes_an_event_that_a_meter_refuses(tokens, prompt, cached, queue):
    metered = begun(BackendMeter(Link(), 0, "a", ""))
    metered.queue_seconds = queue
    metered.end_attempt(tokens=tokens, prompt_tokens=prompt, cached_tokens=cached)
    for event in metered.collect_events(metered.ended_at):
        for value in msgspec.structs.astuple(event):
            assert value is None or 0 <= value < 1 << 53


@given(st.floats(allow_nan=False))
def test_prefill_joules_are_whole_microjoules_and_not_negative(joules):
    metered = BackendMeter(Link(), 0, "a", "").begin_request(1, joules)
    assert metered.prefill_microjoules == round(min(max(0.0, joules), 1e9) * 1e6)
