"""No stricter than vLLM: what pydantic takes is understood, what cannot be read is passed on."""

import json

import pytest

from gateway.service.request.body import decode_members, encode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.extraction import extract_features
from gateway.service.request.loose_values import MOST_TOKENS, read_count, read_flag
from gateway.service.request.members import IMAGE_TOKENS
from gateway.service.request.readers import read_features

HELLO = [{"role": "user", "content": "Hello"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def parsed(kind=EndpointKind.CHAT, **members):
    body = {"model": "auto"} | members
    return parse_request(kind, decode_members(json.dumps(body).encode()))


@pytest.fixture
def features(counter):
    def find(kind=EndpointKind.CHAT, **members):
        return extract_features(parsed(kind, **members), counter)

    return find


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("true", True), ("false", False), ("1", True), ("0", False), ("1.0", True),
        ('"true"', True), ('"False"', False), ('"yes"', True), ('"OFF"', False), ('"1"', True),
        ("null", None), ("2", None), ('"maybe"', None), ("{}", None), ("[]", None),
    ],
)  # fmt: skip
def test_flags(text, flag):
    (raw,) = decode_members(b'{"a":' + text.encode() + b"}").values()
    assert read_flag(raw) is flag


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("50", 50), ('"50"', 50), ('" 50 "', 50), ("50.0", 50), ('"50.0"', 50), ("true", 1),
        ("0", 0), ("-1", -1), ("-7", -1), ("1" + "0" * 400, MOST_TOKENS), ("1e300", MOST_TOKENS),
        ("1.5", None), ('"1.5"', None), ('"many"', None), ('"nan"', None), ("null", None),
        ("[]", None), ("{}", None), ('"' + "1" * 5000 + '"', None), ("1e999", None),
    ],
)  # fmt: skip
def test_counts(text, count):
    (raw,) = decode_members(b'{"a":' + text.encode() + b"}").values()
    assert read_count(raw) == count


@pytest.mark.parametrize("stream", [True, "true", "True", 1, "1", "on", 1.0])
def test_a_stream_is_asked_for_in_many_ways(stream):
    assert parsed(messages=HELLO, stream=stream).stream


@pytest.mark.parametrize("usage", [True, 1, "true", "yes"])
def test_so_is_usage(usage):
    options = {"include_usage": usage}
    assert parsed(messages=HELLO, stream=1, stream_options=options).wants_usage
    assert not parsed(messages=HELLO, stream=0, stream_options=options).wants_usage


@pytest.mark.parametrize("usage", [False, 0, "false", "no", None, [], "perhaps"])
def test_and_it_is_not(usage):
    options = {"include_usage": usage}
    assert not parsed(messages=HELLO, stream=True, stream_options=options).wants_usage


@pytest.mark.parametrize("options", [5, "usage", [], None])
def test_options_that_are_none_ask_for_nothing(options):
    assert not parsed(messages=HELLO, stream=True, stream_options=options).wants_usage


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_byte_order_mark_and_wide_letters(coding):
    members = {"model": "auto", "user": "é🙂"}
    decoded = decode_members(json.dumps(members, ensure_ascii=False).encode(coding))
    assert json.loads(encode_members(decoded)) == members


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": None}, {"type": "text", "text": "hi"}],
        [{"type": "text", "text": "hi", "refusal": None}],
        [{"type": "refusal", "refusal": None}, {"type": "text", "text": "hi"}],
        [{"type": None, "text": "hi"}],
        [{"text": "hi"}],
        [{"type": "text", "text": "hi", "image_url": None}],
        [{"type": "input_text", "text": "hi"}, None, 7, ["x"], {}],
        [{"type": 5, "text": "hi"}],
        ["hi", {"type": "text", "text": 5}],
    ],
)
def test_odd_parts_are_read_for_what_they_hold(features, content):
    odd = features(messages=[{"role": "user", "content": content}])
    plain = features(messages=[{"role": "user", "content": "hi"}])
    assert odd.needs == {"chat"}
    assert plain.tokens_in <= odd.tokens_in <= plain.tokens_in + len(content)


IMAGES = [
    {"type": "image_url", "text": None, "image_url": {"url": "http://x/y.png"}},
    {"type": None, "image_url": {"url": "http://x/y.png"}},
    {"image_url": "http://x/y.png"},
    {"image_url": None, "uuid": "cached"},
    {"type": "image_url", "image_url": None, "uuid": "cached"},
    {"image_embeds": "AAAA"},
    {"video_url": {"url": "http://x/y.mp4"}},
]


@pytest.mark.parametrize("part", IMAGES)
def test_an_image_is_told_with_and_without_a_type(features, part):
    found = features(messages=[{"role": "user", "content": [part]}])
    assert found.needs == {"chat", "images"}
    assert found.tokens_in >= IMAGE_TOKENS


@pytest.mark.parametrize("part", [{"input_audio": {"data": "AA"}}, {"audio_url": "http://x"}])
def test_so_is_a_sound(features, part):
    assert features(messages=[{"role": "user", "content": [part]}]).needs == {"chat", "audio"}


@pytest.mark.parametrize(
    "messages", [None, 5, "hi", {}, [], [[]], ["hi"], [None], [{}], [{"role": 1, "content": 1}]]
)
def test_messages_that_cannot_be_read_count_as_nothing(features, messages):
    found = features(messages=messages)
    assert found.needs == {"chat"}
    assert found.tokens_in <= 7


@pytest.mark.parametrize(
    "messages",
    [
        [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        [*HELLO, {"role": "tool", "tool_call_id": "c", "content": "42"}],
        [*HELLO, {"role": "function", "name": "f", "content": "42"}],
        [*HELLO, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}],
    ],
)
@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_tool_calls_in_the_conversation_need_tools(features, messages, choice):
    assert features(messages=messages, tool_choice=choice).needs == {"chat", "tools"}


@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_need_none(features, calls):
    said = {"role": "assistant", "content": "hi", "tool_calls": calls, "function_call": None}
    assert features(messages=[*HELLO, said]).needs == {"chat"}


@pytest.mark.parametrize(
    ("choice", "needs"),
    [
        ({}, {"chat", "tools"}),
        ({"tool_choice": "auto"}, {"chat", "tools"}),
        ({"tool_choice": None}, {"chat", "tools"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"chat", "tools"}),
        ({"tool_choice": "none"}, {"chat"}),
    ],
)
def test_tools_that_may_not_be_called_need_nothing(features, choice, needs):
    with_tools = features(messages=HELLO, tools=[TOOL], **choice)
    assert with_tools.needs == needs
    # The template shows them to the model all the same.
    assert with_tools.tokens_in > features(messages=HELLO).tokens_in + 5


def test_functions_that_may_not_be_called_need_nothing(features):
    old = {"functions": [{"name": "f"}], "function_call": "none"}
    assert features(messages=HELLO, **old).needs == {"chat"}


def test_a_conversation_may_be_embedded(features):
    found = features(EndpointKind.EMBEDDINGS, messages=HELLO)
    assert found.needs == {"embeddings"}
    assert found.tokens_in == features(messages=HELLO).tokens_in
    image = [{"role": "user", "content": [IMAGES[0]]}]
    assert features(EndpointKind.EMBEDDINGS, messages=image).needs == {"embeddings", "images"}


@pytest.mark.parametrize(
    ("members", "asked"),
    [
        ({"max_tokens": "50"}, 50),
        ({"max_tokens": 100.0}, 100),
        ({"max_tokens": 0, "echo": True}, 1),
        ({"max_tokens": None}, 16),
        ({"max_tokens": -5}, 16),
        ({"max_tokens": "many"}, 16),
        ({}, 16),
    ],
)
def test_a_completions_limit(features, members, asked):
    assert features(EndpointKind.COMPLETIONS, prompt="hi", **members).asked_tokens_out == asked


def test_a_chats_limit(features):
    assert features(messages=HELLO, max_tokens="50").asked_tokens_out == 50
    for none in (None, -1, 1.5, [], "many"):
        assert features(messages=HELLO, max_tokens=none).asked_tokens_out is None


def test_prompt_embeds_need_no_prompt(features):
    found = features(EndpointKind.COMPLETIONS, prompt_embeds=["AA", "BB", "CC"])
    assert (found.tokens_in, found.prompts) == (0, 3)
    assert features(EndpointKind.COMPLETIONS, prompt="hi", prompt_embeds=[]).prompts == 1


@pytest.mark.parametrize(("given", "kept"), [(64, 64), ("64", 64), (-1, -1), (0, None), ([], None)])
def test_truncation(features, given, kept):
    assert features(messages=HELLO, truncate_prompt_tokens=given).truncate_tokens == kept


def test_huge_numbers_are_numbers(features):
    huge = 10**400
    names = ("max_tokens", "min_tokens", "n", "best_of", "truncate_prompt_tokens")
    found = features(messages=HELLO, **dict.fromkeys(names, huge))
    assert found.asked_tokens_out == found.min_tokens == found.answers == MOST_TOKENS


@pytest.mark.parametrize(
    ("value", "limit"), [(50, 50), ("50", 50), (50.0, 50), (0, None), (-1, None), ("x", None)]
)
def test_the_limits_of_responses_and_messages_are_as_loose(counter, value, limit):
    for kind, name in (
        (EndpointKind.RESPONSES, "max_output_tokens"),
        (EndpointKind.MESSAGES, "max_tokens"),
    ):
        ask = parsed(kind, input="Hello", messages=HELLO, **{name: value})
        found = read_features(ask, counter)
        assert found.asked_tokens_out == limit
