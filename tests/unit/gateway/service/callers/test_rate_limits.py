"""Rates: what is taken before a request waits, what its plan takes, what its answer had besides."""

import pytest

from gateway.service.callers.key_limits import KeyLimits
from gateway.service.callers.rate_limits import RateLimits
from gateway.service.client.errors import RateLimitReached

LIMITS = KeyLimits(None, 100, ())


def told(headers):
    return {name.decode(): value.decode() for name, value in headers}


async def test_an_answer_takes_what_is_left_where_it_had_more():
    rates = RateLimits()
    await rates.take_predicted("key", LIMITS, 40, [])
    await rates.take_tokens("key", LIMITS, 500)
    with pytest.raises(RateLimitReached) as raised:
        await rates.take_request("key", LIMITS, waits=True)
    assert told(raised.value.more_headers)["x-ratelimit-remaining-tokens"] == "0"
    assert await rates.take_request("another", LIMITS, waits=True) == []


async def test_looking_before_the_queue_takes_no_tokens():
    rates = RateLimits()
    for _ in range(5):
        assert await rates.take_request("key", LIMITS, waits=True) == []
    left = told(await rates.take_predicted("key", LIMITS, 99, []))
    assert left["x-ratelimit-remaining-tokens"] == "1"


async def test_a_request_that_does_not_wait_is_refused_by_its_plan_alone():
    rates = RateLimits()
    await rates.take_predicted("key", LIMITS, 100, [])
    assert await rates.take_request("key", LIMITS, waits=False) == []
    with pytest.raises(RateLimitReached, match="predicted to take 7"):
        await rates.take_predicted("key", LIMITS, 7, [])


async def test_a_request_that_no_minute_has_tokens_for_is_not_told_to_come_back():
    rates = RateLimits()
    with pytest.raises(RateLimitReached, match="more than a whole minute's") as raised:
        await rates.take_predicted("key", LIMITS, 101, [])
    assert told(raised.value.build_headers())["x-should-retry"] == "false"
    await rates.take_predicted("key", LIMITS, 100, [])
    with pytest.raises(RateLimitReached) as raised:
        await rates.take_predicted("key", LIMITS, 100, [])
    assert "x-should-retry" not in told(raised.value.build_headers())
