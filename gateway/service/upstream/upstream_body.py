"""What a backend is sent: the client's own members, but for the few that must differ."""

from functools import cache

import msgspec
from msgspec import Raw

from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import Members


@cache
def _encode_name(name: str) -> Raw:
    return Raw(msgspec.json.encode(name))


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


_PLAIN_USAGE = Raw(b'{"include_usage":true}')


def _with_usage(options: Raw | None) -> Raw:
    """Ask for the usage chunk that the client did not ask for, keeping its other options."""
    if options is None or bytes(options) == b"null":
        return _PLAIN_USAGE
    members = msgspec.json.decode(options, type=dict[str, Raw])
    members["include_usage"] = Raw(b"true")
    # Without include_usage vLLM ignores it; with ours it would put usage into every chunk.
    members.pop("continuous_usage_stats", None)
    return Raw(msgspec.json.encode(members))
