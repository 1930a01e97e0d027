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
        self.ended_at = []

    def begin_request(self, place, prompt_tokens, prefill_microjoules):
        return MeteredAttempt(7, place, prompt_tokens, prefill_microjoules)

    def end_request(self, metered):
        self.ended_at.append(metered)


class Stream:
    chunks = 1


class Heard:
    last = 0.0


@pytest.fixture
def place():
    return BackendMeter(Link(), 3, "a:8000", "")


def begun(place):
    return place.begin_request(20, 1.5)


def test_it_is_told_in_stages_and_only_what_is_new(place):
    metered = begun(place)
    now = metered.began_at + 1.0
    assert metered.collect_events(now) == [RequestBegin(7, 1_000_000, 3, 20, 1_500_000, False)]
    metered.reported_stage = metered.progress_stage
    assert (metered.progress_stage, metered.collect_events(now)) == (BEGUN, [])
    stream, heard = Stream(), Heard()
    metered.record_first_content(stream, heard)
    heard.last = metered.first_content_at
    now = metered.first_content_at + 0.5
    assert metered.collect_events(now) == [RequestProgress(7, 500_000, 1)]
    metered.reported_stage, metered.reported_tokens = metered.progress_stage, 1
    stream.chunks, heard.last = 9, now
    assert metered.collect_events(now + 0.25) == [RequestProgress(7, 250_000, 8)]
    assert (metered.progress_stage, metered.tokens) == (ANSWERING, 8)
    metered.end_attempt(tokens=12, prompt_tokens=21, cached_tokens=16)
    assert (metered.progress_stage, place.link.ended_at) == (ENDED, [metered])
    (end,) = metered.collect_events(metered.ended_at + 0.125)
    assert end == RequestEnd(7, 125_000, 12, 21, 16, None)


def test_all_of_it_at_once_where_nothing_was_told(place):
    metered = begun(place)
    metered.end_attempt(tokens=5, first_share=0.5)
    kinds = [type(event) for event in metered.collect_events(metered.ended_at)]
    assert kinds == [RequestBegin, RequestProgress, RequestEnd]
    assert metered.first_content_at == pytest.approx((metered.began_at + metered.ended_at) / 2)


@pytest.mark.parametrize(("share", "place_of_first"), [(-3.0, 0.0), (0.25, 0.25), (7.0, 1.0)])
def test_the_first_token_lies_within_the_answer(place, share, place_of_first):
    metered = begun(place)
    metered.end_attempt(tokens=5, first_share=share)
    whole = metered.ended_at - metered.began_at
    assert metered.first_content_at == pytest.approx(metered.began_at + place_of_first * whole)


def test_a_refused_request_computed_nothing(place):
    metered = begun(place)
    metered.record_refusal()
    assert metered.collect_events(metered.ended_at)[-1] == RequestEnd(7, 0, 0, 0, None, None)


def test_a_stream_without_usage_has_the_tokens_of_its_chunks(place):
    metered = begun(place)
    stream = Stream()
    metered.record_first_content(stream, Heard())
    stream.chunks = 41
    metered.end_attempt()
    assert metered.tokens == 40


def test_fewer_tokens_than_were_told_are_not_told(place):
    metered = begun(place)
    metered.record_first_content(Stream(), Heard())
    metered.reported_tokens = 30
    metered.end_attempt(tokens=10)
    assert metered.tokens == 30


def test_what_the_meter_gave_up_is_not_told(place):
    metered = begun(place)
    metered.reported_stage = ABANDONED
    metered.end_attempt(tokens=3)
    assert metered.collect_events(time.monotonic()) == []


def test_tokens_a_chunk_are_learnt_from_whole_answers(place):
    for _ in range(60):
        place.learn_chunk_size(200, 103)
    assert place.tokens_per_chunk == pytest.approx(2.0, rel=0.01)
    place.learn_chunk_size(1000, 5)  # too short to tell
    assert place.tokens_per_chunk == pytest.approx(2.0, rel=0.01)
    metered = begun(place)
    stream = Stream()
    metered.record_first_content(stream, Heard())
    stream.chunks = 51
    metered.end_attempt()
    assert metered.tokens == 100


@pytest.mark.parametrize("odd", [2_000_000_000, 0])
def test_nonsense_about_tokens_a_chunk_is_soon_forgotten(place, odd):
    place.learn_chunk_size(odd, 60)
    for _ in range(50):
        place.learn_chunk_size(57, 60)
    assert place.tokens_per_chunk == pytest.approx(1.0, abs=0.05)


@given(st.lists(st.tuples(st.integers(0, 1 << 31), st.integers(0, 1 << 31))))
def test_tokens_a_chunk_stay_within_reason(answers):
    place = BackendMeter(Link(), 0, "a", "")
    for tokens, chunks in answers:
        place.learn_chunk_size(tokens, chunks)
        assert 0.1 <= place.tokens_per_chunk <= 64.0


def test_a_cached_prompt_is_remembered(place):
    begun(place).end_attempt(tokens=1, cached_tokens=0)
    assert not place.caches_prompts
    begun(place).end_attempt(tokens=1, cached_tokens=4)
    assert place.caches_prompts
    assert begun(place).collect_events(time.monotonic())[0].prompt_may_change


ANYTHING = st.none() | st.integers()


@given(ANYTHING, ANYTHING, ANYTHING, st.none() | st.floats())
def test_no_count_makes_an_event_that_a_meter_refuses(tokens, prompt, cached, queue):
    metered = begun(BackendMeter(Link(), 0, "a", ""))
    metered.queue_seconds = queue
    metered.end_attempt(tokens=tokens, prompt_tokens=prompt, cached_tokens=cached)
    for event in metered.collect_events(metered.ended_at):
        said = msgspec.structs.asdict(event)
        assert said.pop("shared_nanojoules", -1) == -1  # nothing was profiled
        for value in said.values():
            assert value is None or 0 <= value < 1 << 53


@given(st.floats(allow_nan=False))
def test_prefill_joules_are_whole_microjoules_and_not_negative(joules):
    metered = BackendMeter(Link(), 0, "a", "").begin_request(1, joules)
    assert metered.prefill_microjoules == round(min(max(0.0, joules), 1e9) * 1e6)
