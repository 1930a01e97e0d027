"""A client's body, decoded once: raw members for forwarding, those that route it looked into.

Rules: a body is decoded as `dict[str, Raw]`, so that every unknown member reaches vLLM byte for
byte. What is no JSON object of bounded depth is refused, and so is a model that has no readable
name, because nothing can be routed without; all else that cannot be read says nothing here, and
vLLM is the one to refuse it. As at vLLM, a byte order mark is taken off, and UTF-16 and UTF-32 are
understood.
"""

import codecs
import json
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.service.client.errors import BadRequest
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_flag, read_value, to_flag
from gateway.service.request.members import Members, decode_text

MAX_NESTING = 64

_members = msgspec.json.Decoder(Members)
_STREAMS_OF_CHUNKS = (EndpointKind.CHAT, EndpointKind.COMPLETIONS)


def decode_members(body: bytes) -> Members:
    """Decode a body into raw members. Raises BadRequest."""
    if body[:1] != b"{" or body[1:2] == b"\x00":
        body = _encode_utf8(body)
    _check_nesting(body)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8 text") from None
    try:
        return _members.decode(body)
    except UNREADABLE as error:
        raise BadRequest(f"the body is not a JSON object: {error}") from None


def _encode_utf8(body: bytes) -> bytes:
    """Return a body without its byte order mark, and in UTF-8 if its first bytes say otherwise."""
    coding = json.detect_encoding(body[:4])
    if coding == "utf-8-sig":
        return body.removeprefix(codecs.BOM_UTF8)
    if coding == "utf-8":
        return body
    try:
        return body.decode(coding).encode()
    except UnicodeError:
        raise BadRequest("the body is not UTF-8 text") from None


def parse_request(kind: EndpointKind, members: Members) -> InferenceRequest:
    """Look into the members that route a request. Raises BadRequest."""
    model = decode_text(members, "model") or ""
    # vLLM's embeddings know no streaming; asking for it there changes nothing.
    stream = kind.may_stream and bool(read_flag(members.get("stream")))
    # The others' streams say what they used in any case.
    wants_usage = kind not in _STREAMS_OF_CHUNKS or (stream and _asks_for_usage(members))
    return InferenceRequest(kind, members, model, stream, wants_usage)


def _asks_for_usage(members: Members) -> bool:
    """Tell whether `stream_options` ask for the usage chunk."""
    options = read_value(members.get("stream_options"))
    return isinstance(options, dict) and bool(to_flag(options.get("include_usage")))


def _check_nesting(body: bytes) -> None:
    """Raise BadRequest where brackets nest deeper than `MAX_NESTING`.

    Linear, mostly memchr, and bounded in memory: 32 MB of anything take well under a second.
    """
    if len(body) > 2 * _MAX_PIECES < body.count(b'"'):
        raise BadRequest(f"the body has more than {_MAX_PIECES} strings")
    if not _has_more_brackets(body, MAX_NESTING):
        return
    nest = _leave_out_few_strings(body)
    if nest is None:
        nest = _leave_out_strings(body)
    if len(nest) > 2 * _MAX_PIECES:
        raise BadRequest(f"the body has more than {_MAX_PIECES} pairs of brackets")
    for _ in range(MAX_NESTING):
        # One pass takes away the innermost level of every branch, and no more.
        left = nest.replace(b"[]", b"")
        if not left or len(left) == len(nest):
            nest = left
            break
        nest = left
    if nest:
        raise BadRequest(
            f"the body nests deeper than {MAX_NESTING} levels, or its brackets do not match"
        )


def _has_more_brackets(body: bytes, most: int) -> bool:
    """Tell whether more than `most` brackets open; looking for few is much faster than counting."""
    for bracket in (b"{", b"["):
        at = body.find(bracket)
        while at >= 0:
            most -= 1
            if most < 0:
                return True
            at = body.find(bracket, at + 1)
    return False


def _leave_out_strings(body: bytes) -> bytes:
    """Return the brackets outside strings, as of one kind."""
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    found: list[bytes] = []
    inside = 0
    for start in range(0, len(bare), _WINDOW_BYTES):
        # Without escapes every other piece between quotes lies outside a string.
        pieces = bare[start : start + _WINDOW_BYTES].split(b'"')
        found.append(b"".join(pieces[inside::2]).translate(_ONE_KIND, delete=_NOT_BRACKETS))
        inside = (inside + len(pieces) - 1) % 2
    return b"".join(found)


def _leave_out_few_strings(body: bytes) -> bytes | None:
    """Return the same without a copy of the body; None where there are too many quotes."""
    pieces = body.split(b'"', _FEW_QUOTES)
    if len(pieces) > _FEW_QUOTES:
        return None
    outside: list[bytes] = []
    inside = False
    for piece in pieces:
        if not inside:
            outside.append(piece)
            inside = True
        elif not piece.endswith(b"\\") or (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 0:
            inside = False
    return b"".join(outside).translate(_ONE_KIND, delete=_NOT_BRACKETS)


_MAX_PIECES = 1_000_000
_FEW_QUOTES = 10_000
_WINDOW_BYTES = 1 << 18
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def encode_members(members: Mapping[str, Raw]) -> bytes:
    """Encode members for a backend."""
    return msgspec.json.encode(members)
