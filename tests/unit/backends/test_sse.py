"""Server-sent events as bytes: however they are chopped, the same events come out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import sse
from backends.errors import InvalidResponse
from backends.sse import (
    EventSplitter,
    decode_chunk,
    extract_payload,
    has_content,
    split_events,
)

# Bodies as servers write them: JSON on one line, of any text, or [DONE], or a comment.
texts = st.text(max_size=12)
bodies = st.one_of(
    st.builds(
        lambda text, plain: "data: " + json.dumps({"content": text}, ensure_ascii=plain),
        texts,
        st.booleans(),
    ),
    st.just("data: [DONE]"),
    st.just(": ping"),
    st.just("event: error\ndata: {}"),
)
ends = st.sampled_from(["\n", "\r\n"])


def chopped(data, stream):
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(st.data(), st.lists(bodies, min_size=1, max_size=6), ends)
def test_any_chopping_gives_the_same_events(data, wanted, end):
    stream = "".join(body.replace("\n", end) + end * 2 for body in wanted).encode()
    splitter = EventSplitter()
    blocks = [splitter.feed_chunk(piece) for piece in chopped(data, stream)]
    for block in blocks:
        assert block == b"" or block.endswith(b"\n\n")
    found = [event for block in blocks for event in split_events(block)]
    assert found == [body.encode() + b"\n\n" for body in wanted]


@given(st.lists(bodies, min_size=1, max_size=3), ends)
def test_one_byte_at_a_time(wanted, end):
    stream = "".join(body.replace("\n", end) + end * 2 for body in wanted).encode()
    splitter = EventSplitter()
    found = b"".join(splitter.feed_chunk(stream[at : at + 1]) for at in range(len(stream)))
    assert found == "".join(body + "\n\n" for body in wanted).encode()


@given(st.data(), st.lists(bodies, max_size=3), st.binary(min_size=1, max_size=10))
def test_what_is_not_whole_is_held(data, whole, rest):
    held = rest.replace(b"\n", b"").replace(b"\r", b"") or b"x"
    stream = "".join(body + "\n\n" for body in whole).encode()
    splitter = EventSplitter()
    out = b"".join(splitter.feed_chunk(piece) for piece in chopped(data, stream + held))
    assert out == stream
    assert splitter.feed_chunk(b"\n\n") == held + b"\n\n"


def test_an_event_is_passed_on_as_soon_as_it_is_whole():
    splitter = EventSplitter()
    assert splitter.feed_chunk(b"data: 1\n\ndata: 2\n\nda") == b"data: 1\n\ndata: 2\n\n"
    assert splitter.feed_chunk(b"ta: 3\n") == b""
    assert splitter.feed_chunk(b"\n") == b"data: 3\n\n"
    crlf = EventSplitter()
    assert crlf.feed_chunk(b"data: 1\r\n\r\nda") == b"data: 1\n\n"
    assert crlf.feed_chunk(b"ta: 2\r\n\r") == b""
    assert crlf.feed_chunk(b"\n") == b"data: 2\n\n"


@pytest.mark.parametrize("piece", [b"x" * (6 << 20), b"x\r\n" * (3 << 20)])
def test_an_event_without_end_is_refused(piece):
    splitter = EventSplitter()
    for _ in range(2):
        assert splitter.feed_chunk(piece) == b""
    with pytest.raises(InvalidResponse, match=r"an event of over \d+ bytes"):
        splitter.feed_chunk(piece)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b'data: {"a":1}\n\n', b'{"a":1}'),
        (b'data:{"a":1}\n\n', b'{"a":1}'),
        (b"data: [DONE]\n\n", sse.DONE),
        (sse.DONE_EVENT, sse.DONE),
        (b": comment\n\n", b""),
        (b"retry: 10\n\n", b""),
        (b"\n\n", b""),
    ],
)
def test_the_payload(event, data):
    assert extract_payload(event) == data


# Chunks of a real vLLM 0.32, as they came.
ROLE = (
    b'{"id":"chatcmpl-9e","object":"chat.completion.chunk","created":1795155016,"model":"phi-3-mini",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    b'"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}'
)
TOKEN = (
    b'{"id":"chatcmpl-9e","object":"chat.completion.chunk","created":1795155016,"model":"phi-3-mini",'
    b'"choices":[{"index":0,"delta":{"content":" TER"},"logprobs":null,"finish_reason":null,'
    b'"token_ids":null}]}'
)
USAGE = (
    b'{"id":"chatcmpl-93","object":"chat.completion.chunk","created":1795155016,"model":"phi-3-mini",'
    b'"choices":[],"usage":{"prompt_tokens":12,"total_tokens":16,"completion_tokens":4,'
    b'"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":0}},'
    b'"system_fingerprint":"vllm-0.32.0-30b2683a","metrics":{"time_to_first_token_ms":3.2}}'
)
EMPTY_TEXT = (
    b'{"id":"cmpl-aa","object":"text_completion","created":1795155029,"model":"phi-3-mini",'
    b'"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":null,"stop_reason":null}]}'
)
TEXT = EMPTY_TEXT.replace(b'"text":""', b'"text":" tr"')


def delta(**members):
    return json.dumps({"choices": [{"index": 0, "delta": members}]}).encode()


@pytest.mark.parametrize(
    ("data", "has"),
    [
        (ROLE, False),
        (TOKEN, True),
        (USAGE, False),
        (EMPTY_TEXT, False),
        (TEXT, True),
        (delta(), False),
        (delta(content=None), False),
        (delta(role="assistant", content=None, tool_calls=[]), False),
        (delta(content=None, tool_calls=[{"id": "x", "function": {"name": "f"}}]), True),
        (delta(reasoning_content="hm"), True),
        (delta(refusal="no"), True),
        (b'{"choices":[{"delta":{},"finish_reason":"stop"}]}', True),
        (b'{"choices":null}', False),
        (b"{}", False),
    ],
)
def test_the_first_event_is_not_the_first_content(data, has):
    assert has_content(decode_chunk(data)) is has


def test_the_usage_chunk():
    event = decode_chunk(USAGE)
    assert sse.USAGE in USAGE
    assert event.choices == []
    assert (event.usage.prompt_tokens, event.usage.completion_tokens) == (12, 4)
    assert event.usage.prompt_tokens_details["cached_tokens"] == 0
    assert decode_chunk(TOKEN).usage is None


@given(st.text(max_size=20))
def test_no_text_can_look_like_a_usage_member(text):
    for plain in (True, False):
        encoded = json.dumps({"content": text + '"usage":{' + text}, ensure_ascii=plain).encode()
        assert sse.USAGE not in encoded


def test_a_lone_cr_ends_a_line_too():
    splitter = EventSplitter()
    assert splitter.feed_chunk(b"data: 1\r\rdata: 2\r") == b"data: 1\n\n"
    assert splitter.feed_chunk(b"\rdata: 3") == b"data: 2\n\n"
    assert splitter.feed_chunk(b"\r\n\r\n") == b"data: 3\n\n"


def test_a_giant_event_is_not_copied_over_and_over():
    # Each byte is looked at once: 16 MB in pieces of 1 kB would take minutes otherwise.
    splitter = EventSplitter()
    for _ in range(16 << 10):
        assert splitter.feed_chunk(b"x" * 1023 + b"\n") == b""
    assert len(splitter.feed_chunk(b"\n")) == (16 << 20) + 1


def test_several_data_lines_are_one_payload():
    assert extract_payload(b'data: {"id":\ndata: 1}\n\n') == b'{"id":\n1}'
    assert extract_payload(b"event: error\ndata: {}\nid: 1\n\n") == b"{}"
    assert extract_payload(b": ping\n\n") == b""


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"choices":7}', b"[" * 100_000, b"\xff"])
def test_what_vllm_does_not_send_is_a_bad_answer(data):
    with pytest.raises(InvalidResponse, match="not JSON as vLLM sends it"):
        decode_chunk(data)


@pytest.mark.parametrize(
    ("data", "is_error"),
    [
        (b'{"error":{"message":"x","code":500}}', True),
        (b'{"error":"x"}', True),
        (b'{"error":null}', False),
        (TOKEN, False),
    ],
)
def test_an_error_member(data, is_error):
    assert sse.is_error(decode_chunk(data).error) is is_error
