"""Which application a request belongs to, told by what its requests share, and never by who asks.

Rules: system prompt, tool names and answer format make it. Only a keyed hash leaves this file, with
a key of this installation, so that nobody can look up a prompt by its hash; it is never logged or
exported.
"""

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from backends.sse import UNREADABLE

_SYSTEM_ROLES = frozenset({"system", "developer"})
_MOST_CHARS = 16_384
_SIZE = 12


class _Function(Struct, frozen=True):
    name: str = ""


class _Tool(Struct, frozen=True):
    function: _Function = _Function()
    name: str = ""


_tools = msgspec.json.Decoder(list[_Tool])


def is_system(role: object) -> bool:
    """Tell whether a message of this role is the application's own words."""
    return isinstance(role, str) and role in _SYSTEM_ROLES


def describe_application(
    members: Mapping[str, Raw], system: str, format_member: str = "response_format"
) -> str:
    """Return what tells an application from others, from its members and its system prompt.

    `format_member` is the one that has the answer's format, which each API calls by another name.
    """
    if len(system) > _MOST_CHARS:
        system = f"{len(system)}\n{system[:_MOST_CHARS]}"
    names: list[str] = []
    tools = members.get("tools")
    if tools is not None:
        try:
            names = sorted(tool.function.name or tool.name for tool in _tools.decode(tools))
        except UNREADABLE:
            names = ["?"]
    wanted = members.get(format_member)
    shape = "" if wanted is None else bytes(wanted)[:_MOST_CHARS].decode(errors="replace")
    return "\0".join((system, *names, shape))


def hash_application(description: str, key: bytes) -> str:
    """Return the keyed hash of a description, as 24 hex digits."""
    digest = hashlib.blake2b(description.encode("utf-8", "replace"), digest_size=_SIZE, key=key)
    return digest.hexdigest()
