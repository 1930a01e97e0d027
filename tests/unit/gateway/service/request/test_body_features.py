"""Reading a request: what routes it, what it needs, and how many tokens it is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.service.client.errors import BadRequest
from gateway.service.request.body import decode_members, parse_request
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.extraction import extract_features
from gateway.service.request.members import IMAGE_TOKENS
from gateway.service.request.readers import read_features
from gateway.tokens import Counted, TokenCounter


class Letters(TokenCounter):
    """Counts a token per letter, so that a test can add up by itself."""

    def __init__(self):
        super().__init__(None, "letters")

    def measure(self, text):
        return Counted(sum(character.isalpha() for character in text), 0)


def chat(*messages, **more):
    return json.dumps({"model": "auto", "messages": list(messages), **more}).encode()


def user(content):
    return {"role": "user", "content": content}


def measured(body, kind=EndpointKind.CHAT, counter=None):
    return extract_features(parse_request(kind, decode_members(body)), counter or Letters())


def refused(body, kind=EndpointKind.CHAT):
    with pytest.raises(BadRequest) as caught:
        measured(body, kind)
    assert caught.value.status == 400
    return caught.value


def test_what_routes_a_request():
    ask = parse_request(EndpointKind.CHAT, decode_members(chat(user("hi"), stream=True)))
    assert (ask.kind, ask.model, ask.stream, ask.wants_usage) == (
        EndpointKind.CHAT,
        "auto",
        True,
        False,
    )


@pytest.mark.parametrize(
    ("options", "wants"),
    [(None, False), ({}, False), ({"include_usage": True}, True), ({"include_usage": None}, False)],
)
def test_usage_is_wanted_only_if_it_was_asked_for(options, wants):
    body = chat(user("hi"), stream=True, stream_options=options)
    assert parse_request(EndpointKind.CHAT, decode_members(body)).wants_usage is wants
    unary = chat(user("hi"), stream=False, stream_options=options)
    assert parse_request(EndpointKind.CHAT, decode_members(unary)).wants_usage is False


@pytest.mark.parametrize("stream", [None, False])
def test_a_stream_must_be_asked_for(stream):
    assert (
        parse_request(EndpointKind.CHAT, decode_members(chat(user("hi"), stream=stream))).stream
        is False
    )


@pytest.mark.parametrize("name", [7, True, ["auto"], {"a": 1}])
def test_nothing_can_be_routed_without_a_readable_name(name):
    error = refused(json.dumps({"model": name, "messages": []}).encode())
    assert error.param == "model"
    assert "model" in error.message


@pytest.mark.parametrize("body", [b"{}", b'{"model":null}', b'{"model":""}'])
def test_no_name_is_the_configs_to_choose(body):
    assert parse_request(EndpointKind.CHAT, decode_members(body)).model == ""


def test_a_message_costs_four_and_the_answer_three():
    assert measured(chat(user("abc"))).tokens_in == 3 + 4 + 3
    assert measured(chat(user("abc"), user("de"))).tokens_in == 5 + 2 * 4 + 3
    assert measured(chat({"role": "assistant", "content": None})).tokens_in == 4 + 3


def test_a_text_counts_as_tiktoken_counts_it(counter):
    text = "Explain reinforcement learning"
    assert (
        measured(chat(user(text)), counter=counter).tokens_in == counter.count_tokens(text) + 4 + 3
    )


def test_tools_and_tool_calls_count():
    plain = measured(chat(user("abc")))
    tools = [{"type": "function", "function": {"name": "zzz"}}]
    letters = sum(map(str.isalpha, json.dumps(tools)))
    with_tools = measured(chat(user("abc"), tools=tools))
    assert with_tools.tokens_in == plain.tokens_in + letters
    assert with_tools.needs == {"chat", "tools"}
    calls = [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]
    letters = sum(map(str.isalpha, json.dumps(calls)))
    called = measured(chat(user("abc"), {"role": "assistant", "content": "", "tool_calls": calls}))
    assert called.tokens_in == 3 + 2 * 4 + 3 + letters


def image(url="http://x/y.png"):
    return {"type": "image_url", "image_url": {"url": url}}


def test_images_and_audio_have_a_fixed_cost_and_need_a_capability():
    text = {"type": "text", "text": "abc"}
    seen = measured(chat(user([text, image(), image("data:image/png;base64," + "A" * 9999)])))
    assert seen.tokens_in == 3 + 2 * IMAGE_TOKENS + 4 + 3
    assert seen.needs == {"chat", "images"}
    heard = measured(chat(user([{"type": "input_audio", "input_audio": {"data": "AAAA"}}])))
    assert heard.needs == {"chat", "audio"}


def test_text_parts_need_nothing_more():
    parts = [{"type": "text", "text": "abc"}, {"type": "text", "text": ""}]
    features = measured(chat(user(parts)))
    assert (features.tokens_in, features.needs) == (3 + 4 + 3, {"chat"})


def test_a_refusal_in_the_history_is_no_image():
    part = {"type": "refusal", "refusal": "no"}
    features = measured(chat(user("abc"), {"role": "assistant", "content": [part]}))
    assert features.needs == {"chat"}
    assert features.tokens_in < IMAGE_TOKENS


@pytest.mark.parametrize(
    ("member", "needs"),
    [
        ('"tools":[{"type":"function"}]', {"chat", "tools"}),
        ('"functions":[{"name":"f"}]', {"chat", "tools"}),
        ('"logprobs":true', {"chat", "logprobs"}),
        ('"top_logprobs":3', {"chat", "logprobs"}),
        ('"tools":null', {"chat"}),
        ('"tools":[]', {"chat"}),
        ('"tools":[ ]', {"chat"}),
        ('"logprobs":false', {"chat"}),
        ('"top_logprobs":0', {"chat"}),
    ],
)
def test_what_a_request_needs(member, needs):
    body = b'{"model":"auto","messages":[{"role":"user","content":"hi"}],' + member.encode() + b"}"
    assert measured(body).needs == needs


def test_completions_ask_for_logprobs_with_any_number():
    asked = json.dumps({"model": "auto", "prompt": "a", "logprobs": 0}).encode()
    # 0 alternatives, but the chosen tokens' own logprobs
    assert measured(asked, EndpointKind.COMPLETIONS).needs == {"completions", "logprobs"}


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": 8}, 8),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_tokens": 10**30}, 1 << 53),
    ],
)
def test_the_clients_own_limit(limits, asked):
    assert measured(chat(user("hi"), **limits)).asked_tokens_out == asked


@pytest.mark.parametrize(
    ("value", "tokens_in"),
    [
        ("abc", 3),
        (["ab", "cde"], 5),
        ([1, 2, 3, 4], 4),
        ([[1, 2], [3]], 3),
        ([{"text": "ab"}], 6),
    ],
)
@pytest.mark.parametrize("kind", [EndpointKind.COMPLETIONS, EndpointKind.EMBEDDINGS])
def test_prompts_and_inputs_of_every_shape(kind, value, tokens_in):
    body = json.dumps({"model": "auto", kind.prompt_member: value, "max_tokens": 9}).encode()
    features = measured(body, kind)
    assert features.tokens_in == tokens_in
    assert features.needs == {kind.value}
    assert features.asked_tokens_out == (9 if kind is EndpointKind.COMPLETIONS else 1)


@pytest.mark.parametrize("value", [[], [1, "a"], [True, False], [1.5], {"a": 1}, 7, None, [None]])
@pytest.mark.parametrize("kind", [EndpointKind.COMPLETIONS, EndpointKind.EMBEDDINGS])
def test_prompts_that_cannot_be_read_count_as_nothing(kind, value):
    body = json.dumps({"model": "auto", kind.prompt_member: value}).encode()
    features = measured(body, kind)
    assert (features.tokens_in, features.prompts, features.needs) == (0, 1, {kind.value})


@given(st.binary(max_size=60) | st.text('{}[]":,mode lautosg', max_size=40).map(str.encode))
@settings(max_examples=200)
def test_whatever_comes_it_is_a_400_or_fine(body):
    for raw in (body, b'{"model":"auto","messages":' + body + b"}"):
        try:
            features = measured(raw)
        except BadRequest:
            continue
        assert features.tokens_in >= 0


def test_a_lone_surrogate_is_a_400():
    refused(b'{"model":"auto","messages":[{"role":"user","content":"a\\ud800b"}]}')


def test_the_kinds():
    assert [(kind.url_path, kind.prompt_member) for kind in EndpointKind] == [
        ("/v1/chat/completions", "messages"),
        ("/v1/completions", "prompt"),
        ("/v1/embeddings", "input"),
        ("/v1/responses", "input"),
        ("/v1/messages", "messages"),
        ("/v1/messages/count_tokens", "messages"),
    ]


@pytest.mark.parametrize(
    "prompt",
    ["ab c", ["ab", "cde"], [1, 2, 3], [[1], [2, 3]], ["a"] * 3_000],
    ids=["text", "texts", "tokens", "lists", "many"],
)
def test_saying_the_usual_changes_nothing(prompt):
    def ask_for(**more):
        ask = parse_request(
            EndpointKind.COMPLETIONS,
            decode_members(json.dumps({"model": "auto", "prompt": prompt, **more}).encode()),
        )
        return extract_features(ask, Letters()), ask.choices

    assert ask_for() == ask_for(n=1, best_of=1, min_tokens=0, ignore_eos=False, tools=[])


TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": [{"type": "text", "text": "two"}]},
    {"role": "user", "content": "three"},
]


@pytest.mark.parametrize(
    ("kind", "member", "turns"),
    [
        (EndpointKind.CHAT, "messages", TURNS),
        (EndpointKind.MESSAGES, "messages", TURNS[1:]),
        (EndpointKind.RESPONSES, "input", TURNS),
    ],
)
def test_the_last_message_and_those_before_are_told_apart(kind, member, turns):
    ask = parse_request(kind, decode_members(json.dumps({"model": "a", member: turns}).encode()))
    for _ in range(2):  # a request that waited is read again
        read_features(ask, Letters())
        assert (list(ask.earlier), ask.words) == (["one", "two"], "three")
    ask = parse_request(kind, decode_members(json.dumps({"model": "a", member: []}).encode()))
    read_features(ask, Letters())
    assert (list(ask.earlier), ask.words) == ([], "")
