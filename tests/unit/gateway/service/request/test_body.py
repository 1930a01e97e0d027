"""Decoding a body: raw members in and out, and what is refused before anything looks inside."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.service.client.errors import BadRequest
from gateway.service.request.body import MAX_NESTING, decode_members, encode_members

spelled = st.sampled_from(
    [
        "0", "-0", "1.0", "1E5", "1e-7", "12345678901234567890123", "0.1000", "true", "null",
        '"\\u0041\\/"', '"é\\n"', '"\\ud83d\\ude42"', "[ 1,2 ,  3]", '{ "b" : [ {} ] }',
        '{"a":1,"a":2}', '"[{\\"}]"', "[[],[ ]]", '""', "[]", "{}",
    ]
)  # fmt: skip
names = st.text("abcdefgh_", min_size=1, max_size=6)


@given(st.dictionaries(names, spelled, max_size=8), st.sampled_from(["", " ", "\n\t "]))
def test_unknown_members_pass_byte_for_byte(members, gap):
    inside = ",".join(f'{gap}"{name}"{gap}:{gap}{raw}{gap}' for name, raw in members.items())
    decoded = decode_members(f"{{{inside}}}".encode())
    assert {name: bytes(raw).decode() for name, raw in decoded.items()} == members
    encoded = encode_members(decoded).decode()
    assert encoded == "{" + ",".join(f'"{name}":{raw}' for name, raw in members.items()) + "}"


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=5), st.booleans())
def test_any_text_survives(members, ascii_only):
    body = json.dumps(members, ensure_ascii=ascii_only).encode()
    assert json.loads(encode_members(decode_members(body))) == members


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"x"', b"1", b"{", b'{"a":1', b'{"a":1}x', b"{'a':1}", b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":01}', b'{"a":+1}', b'{"a":tru}', b"{a:1}", b"{1:1}",
        b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b"<html>",
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_a_400(body):
    with pytest.raises(BadRequest) as caught:
        decode_members(body)
    assert caught.value.status == 400
    assert "the body" in caught.value.message


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


# Strings full of what a nesting check might stumble over.
tricky = st.text('[]{}"\\,: \né', max_size=12)
values = st.recursive(
    st.none() | st.integers(-9, 9) | tricky,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(tricky, inner, max_size=4),
    max_leaves=30,
)


@given(values, st.integers(50, 70), st.booleans(), st.data())
@settings(max_examples=300)
def test_the_nesting_check_agrees_with_a_real_parser(value, levels, many, data):
    for level in range(levels):
        sibling = data.draw(tricky) if level % 16 == 0 else ""
        value = [sibling, value] if level % 3 else {sibling: [], sibling + "k": value}
    # So many strings are told apart in another way than a few.
    beside = [data.draw(tricky)] * 6_000 if many else []
    text = json.dumps({"a": value, "b": beside}, ensure_ascii=False)
    too_deep = depth(json.loads(text)) > MAX_NESTING
    if not too_deep:
        decode_members(text.encode())
        return
    with pytest.raises(BadRequest, match="nests deeper than 64 levels"):
        decode_members(text.encode())


def test_64_levels_pass_and_65_do_not():
    assert MAX_NESTING == 64
    for opening, closing in (("[", "]"), ('{"k":', "}")):
        at_most = '{"a":' + opening * 63 + "1" + closing * 63 + "}"
        decode_members(at_most.encode())
        with pytest.raises(BadRequest, match="nests deeper than 64 levels"):
            decode_members(at_most.replace("1", opening + "1" + closing).encode())


def test_many_brackets_side_by_side_are_no_nesting():
    decode_members(b'{"a":[' + b"[[]]," * 5000 + b"1]}")
    decode_members(b'{"a":"' + b"[" * 5000 + b'"}')
    decode_members(b'{"a":"' + b'\\"[\\\\' * 500 + b'"}')


def test_a_bracket_bomb_is_a_400():
    for body in (b"[" * 1_000_000, b'{"a":' * 200_000, b"]" * 100_000):
        with pytest.raises(BadRequest):
            decode_members(body)
