"""What an answer's usage gets, and that nothing else of it changes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.sse import TokenUsage
from gateway.service.upstream.usage_impact import add_usage_impact

USAGE = TokenUsage(prompt_tokens=3, completion_tokens=5)


def impact(usage):
    return {"energy": {"joules": usage.prompt_tokens + usage.completion_tokens}}


def test_the_usage_gets_members():
    body = b'{"model": "m", "usage": {"prompt_tokens": 3, "more": [1.50, null]}, "big": 1e400}'
    got = add_usage_impact(body, USAGE, impact)
    assert got == (
        b'{"model":"m","usage":{"prompt_tokens":3,"more":[1.50, null],"energy":{"joules":8}},'
        b'"big":1e400}'
    )


@pytest.mark.parametrize("body", [b"{}", b'{"usage":null}', b'{"usage":[1]}', b"[", b'"\xff"'])
def test_what_has_no_usage_stays_as_it_came(body):
    assert add_usage_impact(body, USAGE, impact) == body


def test_who_does_not_ask_gets_it_byte_for_byte():
    body = b'{"usage": {"prompt_tokens": 3}}'
    assert add_usage_impact(body, USAGE, None) is body
    assert add_usage_impact(body, None, impact) is body


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(), max_size=4))
def test_everything_else_is_kept(more):
    whole = {**more, "usage": {**more, "prompt_tokens": 3}}
    got = json.loads(add_usage_impact(json.dumps(whole).encode(), USAGE, impact))
    assert got == {**whole, "usage": {**whole["usage"], "energy": {"joules": 8}}}
