"""Forms: the model's name is found and replaced, and every other byte stays."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.service.client.errors import BadRequest
from gateway.service.request.client_body import parse_form

TYPE = b'multipart/form-data; boundary="--x y"'
MARK = b"----x y"


def form(*parts):
    """A form of (name, value) parts."""
    made = b""
    for name, value in parts:
        head = b'Content-Disposition: form-data; name="%s"' % name
        made += MARK + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n"
    return made + MARK + b"--\r\n"


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_every_byte_but_the_name_stays(sound, first, stream):
    parts = [(b"file", sound), (b"stream", b"true" if stream else b"false")]
    parts.insert(0 if first else 2, (b"model", b"phi-3-mini"))
    if MARK in sound:
        return
    parsed = parse_form(TYPE, form(*parts))
    assert (parsed.model, parsed.stream) == ("phi-3-mini", stream)
    wanted = [(name, b"a/b" if name == b"model" else value) for name, value in parts]
    assert parsed.encode_for("a/b") == form(*wanted)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_a_refusal(body):
    for whole in (body, MARK + b"\r\n" + body, form((b"model", body))[: len(body) + 60]):
        with contextlib.suppress(BadRequest):
            parse_form(TYPE, whole)


def test_a_form_that_names_no_model_is_given_the_servers_name():
    parts = [(b"file", b"sound"), (b"language", b"en")]
    parsed = parse_form(TYPE, form(*parts))
    assert (parsed.model, parsed.stream) == (None, False)
    assert parsed.encode_for("a/b") == form((b"model", b"a/b"), *parts)
    parsed = parse_form(TYPE, form(*parts, (b"model", b"")))
    assert (parsed.model, parsed.encode_for("a")) == ("", form(*parts, (b"model", b"a")))


@pytest.mark.parametrize("parts", [((b"model", b"a"), (b"model", b"b")), ((b"model", b"a" * 600),)])
def test_one_name_of_a_sane_length_is_wanted(parts):
    with pytest.raises(BadRequest):
        parse_form(TYPE, form(*parts))


@pytest.mark.parametrize("kind", [b"", b"application/json", b"multipart/form-data", b"multipart/x"])
def test_another_type_is_refused(kind):
    with pytest.raises(BadRequest, match="multipart"):
        parse_form(kind, form((b"model", b"a")))
