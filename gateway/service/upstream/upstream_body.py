"""What a backend is sent: the client's own body, but for the few members that must differ."""

from functools import cache

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.service.request.body import encode_members
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_flag
from gateway.service.request.members import Members


@cache
def _encode_name(name: str) -> Raw:
    return Raw(msgspec.json.encode(name))


def encode_upstream_body(
    ask: InferenceRequest, served_name: str, response_id: str | None = None
) -> tuple[str, bytes | None]:
    """Return a body's type and its bytes; None: it has no body."""
    if ask.form is not None:
        return ask.form.content_type.decode("latin-1"), ask.form.encode_for(served_name)
    if ask.kind.method == "GET":
        return "application/json", None
    return "application/json", encode_members(build_upstream_members(ask, served_name, response_id))


def build_upstream_members(
    ask: InferenceRequest, served_name: str, response_id: str | None = None
) -> Members:
    """Return the members a backend is sent: the client's, but for what must differ.

    `response_id` is the id that a response of the Responses API is to have.
    """
    members = dict(ask.members)
    members.pop("joulegate", None)
    members["model"] = _encode_name(served_name)
    if response_id is not None:
        members["request_id"] = Raw(msgspec.json.encode(response_id))
    if ask.stream and not ask.wants_usage:
        members["stream_options"] = _with_usage(members.get("stream_options"))
    return members


def _decode_options(raw: Raw) -> dict[str, Raw] | None:
    try:
        return msgspec.json.decode(raw, type=dict[str, Raw])
    except UNREADABLE:
        return None


def _says_no(raw: Raw | None) -> bool:
    """Tell whether a member says no, in a way that vLLM understands."""
    return raw is None or bytes(raw) == b"null" or read_flag(raw) is False


_PLAIN_USAGE = Raw(b'{"include_usage":true}')


def _with_usage(options: Raw | None) -> Raw:
    """Ask for the usage chunk that the client did not ask for, keeping its other options."""
    if options is None or bytes(options) == b"null":
        return _PLAIN_USAGE
    members = _decode_options(options)
    if members is None or not _says_no(members.get("include_usage")):
        return options  # vLLM is to say what is wrong with it
    members["include_usage"] = Raw(b"true")
    # Without include_usage vLLM ignores it; with ours it would put usage into every chunk.
    members.pop("continuous_usage_stats", None)
    return Raw(msgspec.json.encode(members))
