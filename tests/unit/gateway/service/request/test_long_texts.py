"""Bodies with a long text: read at its ends, counted by a sample, logged whole where it is."""

import json

import pytest

from gateway.cut_text import LEAST_BYTES, CutText
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.readers import read_features
from gateway.tokens import count_dense

LONG = 'She said "no\\never"; then it rained, é and 漢.\nAnother line of 12 words follows. ' * 1_500
PART = {"type": "text", "text": LONG}
SAID = {"role": "user", "content": LONG}
CHAT, TYPED = EndpointKind.CHAT, EndpointKind.MESSAGES
assert len(LONG) > LEAST_BYTES


def read(kind, counter, **members):
    ask = parse_request(kind, decode_members(json.dumps({"model": "auto", **members}).encode()))
    return ask, read_features(ask, counter)


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (CHAT, {"messages": [SAID]}),
        (CHAT, {"messages": [{"role": "user", "content": [PART]}]}),
        (CHAT, {"messages": [{"role": "user", "content": [LONG]}]}),
        (EndpointKind.COMPLETIONS, {"prompt": LONG}),
        (EndpointKind.EMBEDDINGS, {"input": LONG}),
        (EndpointKind.RESPONSES, {"input": LONG}),
        (EndpointKind.RESPONSES, {"input": [{"role": "user", "content": [PART]}]}),
        (TYPED, {"max_tokens": 5, "messages": [SAID]}),
        (TYPED, {"max_tokens": 5, "messages": [{"role": "user", "content": [PART]}]}),
    ],
)
def test_it_is_counted_and_known_whole(counter, kind, members):
    ask, features = read(kind, counter, **members)
    assert features.tokens_in == pytest.approx(len(counter.encode(LONG)), rel=0.02)
    assert features.dense_chars == pytest.approx(count_dense(LONG), rel=0.15)
    whole = ask.words.decode_whole() if isinstance(ask.words, CutText) else ask.words
    assert whole == LONG
    assert ask.words[:6_000] == LONG[:6_000]
    assert ask.words[-2_000:] == LONG[-2_000:]


@pytest.mark.parametrize("content", [LONG, [PART]])
def test_the_applications_own_words_are_read_whole(counter, content):
    system = {"role": "system", "content": content}
    ask, features = read(CHAT, counter, messages=[system, {"role": "user", "content": "Why?"}])
    assert ask.system == LONG
    assert not isinstance(ask.system, CutText)
    assert features.tokens_in == pytest.approx(len(counter.encode(LONG)), rel=0.03)
    other, _ = read(CHAT, counter, messages=[{**system, "content": LONG + "!"}])
    assert other.application != ask.application


def test_a_long_text_beside_others(counter):
    parts = [{"type": "text", "text": "Read this:"}, PART]
    talk = [SAID, {"role": "assistant", "content": "No."}, {"role": "user", "content": parts}]
    ask, features = read(CHAT, counter, messages=talk)
    assert ask.words.decode_whole() == f"Read this:\n{LONG}"
    assert features.tokens_in == pytest.approx(2 * len(counter.encode(LONG)), rel=0.02)
    assert ask.texts.ends == [1, 2, 4]
