"""Bodies made to be expensive cost little; bodies that are merely odd are understood."""

import json
import random
import time
import tracemalloc

import pytest

from backends.registry import Backend, Deployment
from gateway.config import parse_config
from gateway.service.client.errors import BadRequest, GatewayDraining
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.extraction import extract_features
from gateway.service.request.plan import make_plan
from gateway.service.request.routing_table import ModelNames, RoutingSnapshot
from gateway.tokens import TokenCounter

SIZE = 32 * 1024 * 1024
HEAD = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"z":'
MEGABYTE = 1 << 20


def filled(open_, piece, close):
    """A body of SIZE bytes at most, made of one piece repeated."""
    room = SIZE - len(HEAD) - len(open_) - len(close)
    body = HEAD + open_ + piece * (room // len(piece)) + close
    assert SIZE - 200 < len(body) <= SIZE
    return body


DEEP_LIST = b"[" + b"[" * 50 + b"]" * 50 + b","
DEEP = b"[" * 60 + b"]" * 60 + b","
BODIES = {
    "only open": lambda: filled(b"", b"[", b""),
    "only close": lambda: filled(b"", b"]", b""),
    "open and close": lambda: filled(b"", b"[]", b""),
    "valid and deep": lambda: filled(b"[", DEEP, b"0]}"),
    "short strings": lambda: filled(b"[" * 40, b'"ab",', b"0" + b"]" * 40 + b"}"),
    "brackets in short strings": lambda: filled(b"[[[],[]],", b'"a[b]c",', b"0]}"),
    "escapes": lambda: filled(b"[[[],[]],", b'"\\"\\\\",', b"0]}"),
    "one long string": lambda: filled(b'["', b"A", b'"]}'),
    "quotes that never end": lambda: filled(b"[" * 70 + b'"', b'\\"', b""),
    "small objects": lambda: filled(b"[", b'{"a":{}},', b"{}]}"),
    "as many strings as may be": lambda: filled(DEEP_LIST, b'"' + b"[a]" * 13 + b'",', b"0]}"),
    "as many lists as may be": lambda: filled(b"[", b"[" + b"1," * 18 + b"1],", b"0]}"),
}
VALID = {"one long string", "as many strings as may be", "as many lists as may be"}
"""Those that hold few enough brackets and strings for a refusal to be wrong."""


def tried(body):
    """What a body decodes to, or what it is refused with."""
    try:
        return decode_members(body), None
    except BadRequest as error:
        return None, error


@pytest.mark.parametrize("name", BODIES)
def test_no_body_holds_the_event_loop(name):
    body = BODIES[name]()
    began = time.process_time()
    decoded, refusal = tried(body)
    assert time.process_time() - began < 1.5
    if name in VALID:
        assert refusal is None
        assert bytes(decoded["model"]) == b'"auto"'
    elif name.startswith(("only", "quotes")):
        assert refusal.status == 400
    elif refusal is not None:
        # Well-formed, and refused for its size alone.
        assert (refusal.status, "more than" in refusal.message) == (400, True)


def test_many_brackets_are_refused_for_what_they_are():
    with pytest.raises(BadRequest) as caught:
        decode_members(HEAD + b"[" + b"[]," * 1_500_000 + b"[]]}")
    assert caught.value.status == 400
    assert "more than 1000000" in caught.value.message


def test_a_hundred_thousand_brackets_are_nothing_special():
    decoded = decode_members(HEAD + b"[" + b"[{}]," * 50_000 + b"[]]}")
    assert len(json.loads(bytes(decoded["z"]))) == 50_001


@pytest.mark.parametrize("name", [name for name in BODIES if "strings" in name])
def test_short_strings_are_not_kept_apart(name):
    body = BODIES[name]()
    tracemalloc.start()
    try:
        tried(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 * MEGABYTE


class Encoding:
    """An encoding that remembers how many characters it was given."""

    def __init__(self, encoding):
        self._encoding = encoding
        self.shown = 0

    def encode_ordinary(self, text):
        self.shown += len(text)
        return self._encoding.encode_ordinary(text)


MANY = 200_000
LONG = "a word or two of text"
ODD = {
    "texts": (EndpointKind.COMPLETIONS, {"prompt": [LONG] * MANY}),
    "short texts": (EndpointKind.COMPLETIONS, {"prompt": ["abcd"] * MANY}),
    "token ids": (EndpointKind.COMPLETIONS, {"prompt": [7] * MANY}),
    "token id lists": (EndpointKind.COMPLETIONS, {"prompt": [[1, 2]] * MANY}),
    "inputs": (EndpointKind.EMBEDDINGS, {"input": [LONG] * MANY}),
    "messages": (EndpointKind.CHAT, {"messages": [{"role": "user", "content": "abcd"}] * MANY}),
    "parts": (
        EndpointKind.CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcd"}] * MANY}]},
    ),
}
LEAST = {"texts": 6, "short texts": 1, "token ids": 1, "token id lists": 2, "inputs": 6}
"""Tokens that an entry has at least; its quotes and commas may count too."""
SHOWN = 64 * 1024
"""Characters that may be encoded in all, of the megabytes there are."""


@pytest.fixture
def planned(shipped, counter):
    """Plan a body; what the counter was shown."""
    config = parse_config(
        """
models:
  - name: phi-3-mini
    context: 100000000
    capabilities: [chat, completions, embeddings]
    backends: [{url: "http://a:1"}]
""",
        "g.yaml",
        {},
    )
    deployed = [
        Deployment(
            m.name,
            m.deployment_label,
            m.name,
            [Backend(m.backends[0].root_url)],
            rng=random.Random(0),
        )
        for m in config.models
    ]
    snapshot = RoutingSnapshot(config, deployed, shipped)

    def make(kind, members):
        ask = parse_request(kind, decode_members(json.dumps({"model": "auto", **members}).encode()))
        spy = Encoding(counter._encoding)
        counts = TokenCounter(spy, counter.source)
        return make_plan(ask, ModelNames(config).resolve_name("auto"), {}, snapshot, counts), spy

    return make


@pytest.mark.parametrize("name", ODD)
def test_large_lists_are_sampled(planned, name):
    made, spy = planned(*ODD[name])
    assert spy.shown <= SHOWN
    (best,) = made.decision.candidates
    least = LEAST.get(name, 1) * MANY
    assert 0.8 * least < best.tokens_in < 7 * least


@pytest.mark.parametrize("prompt", [[7] * MANY, [[1, 2]] * (MANY // 2), [[1], [2, 3, 4]] * 50_000])
def test_token_ids_are_counted_exactly_and_not_decoded(planned, prompt):
    made, spy = planned(EndpointKind.COMPLETIONS, {"prompt": prompt})
    assert (made.decision.candidates[0].tokens_in, spy.shown) == (MANY, 0)


@pytest.mark.parametrize("prompt", [[[1]] * MANY, [7] * MANY, ["abcd"] * MANY])
def test_long_lists_are_not_taken_apart(counter, prompt):
    body = json.dumps({"model": "auto", "prompt": prompt}).encode()
    ask = parse_request(EndpointKind.COMPLETIONS, decode_members(body))
    tracemalloc.start()
    try:
        extract_features(ask, counter)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A few copies of it; an object for each entry would take ten times as much.
    assert peak < 4 * len(body)


def chat(content, **more):
    body = {"model": "auto", "messages": [{"role": "user", "content": content}], **more}
    return parse_request(EndpointKind.CHAT, decode_members(json.dumps(body).encode()))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_whole_number_may_be_written_as_a_float(counter, name):
    assert extract_features(chat("hi", **{name: 100.0}), counter).asked_tokens_out == 100


def test_a_plain_string_among_the_parts_is_text(counter):
    part = {"type": "text", "text": "and a world besides"}
    plain = extract_features(chat(["Hello, hello", part]), counter)
    typed = extract_features(chat([{"type": "text", "text": "Hello, hello"}, part]), counter)
    assert plain == typed
    assert plain.tokens_in > extract_features(chat([part]), counter).tokens_in


def test_a_null_steering_object_is_none(planned):
    made, _ = planned(EndpointKind.CHAT, {"messages": [{"role": "user", "content": "x"}]})
    null, _ = planned(
        EndpointKind.CHAT, {"messages": [{"role": "user", "content": "x"}], "joulegate": None}
    )
    assert null.decision.weights == made.decision.weights


def test_draining_does_not_tell_an_sdk_to_give_up():
    headers = dict(GatewayDraining("stopping", retry_after_seconds=1).build_headers())
    assert headers.get(b"x-should-retry") != b"false"
    assert headers[b"retry-after"] == b"1"


@pytest.mark.parametrize(
    ("members", "sequences", "choices"),
    [
        ({}, 1, 1),
        ({"n": 1}, 1, 1),
        ({"n": None}, 1, 1),
        ({"n": 2}, 2, 2),
        ({"n": "2"}, 2, 2),
        ({"n": 2.0}, 2, 2),
        ({"n": "two"}, 1, 1),
        ({"n": -2}, 1, 1),
        ({"best_of": 3}, 3, 1),
        ({"best_of": 3, "n": 2}, 3, 2),
        ({"prompt": "one"}, 1, 1),
        ({"prompt": ["one"]}, 1, 1),
        ({"prompt": [1, 2, 3]}, 1, 1),
        ({"prompt": ["one", "two"]}, 2, 2),
        ({"prompt": [[1], [2], [3]], "n": 2}, 6, 6),
        ({"prompt": ["one", "two"], "n": 2, "best_of": 3}, 6, 4),
        ({"prompt": None, "prompt_embeds": ["a", "b"]}, 2, 2),
        ({"prompt": "one", "prompt_embeds": "a"}, 2, 2),
        ({"prompt": ["a long one" * 200] * 20}, 20, 0),
    ],
)
def test_how_many_answers_there_are_to_be(counter, members, sequences, choices):
    body = json.dumps({"model": "auto", **members}).encode()
    ask = parse_request(EndpointKind.COMPLETIONS, decode_members(body))
    assert extract_features(ask, counter).sequences == sequences
    assert ask.choices == choices
