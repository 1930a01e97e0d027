"""The caps on what a request may ask to be generated: answers, and the tokens of one.

They hold wherever a body can say either, at endpoints that go by a model's name too; where no limit
is asked for, the cap is set.
"""

from typing import Final

import msgspec
from msgspec import Raw

from gateway.config import LimitsConfig
from gateway.service.client.errors import BadRequest
from gateway.service.request.answer_limits import LIMIT_MEMBERS, NESTED, find_limiting
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_count
from gateway.service.request.members import Members

_CHOICES: Final = ("n", "best_of")


def hold_to_caps(ask: InferenceRequest, limits: LimitsConfig) -> None:
    """Hold a request to the caps on its answers and their tokens. Raises BadRequest."""
    kind = ask.kind.value
    names, member = LIMIT_MEMBERS.get(kind, ()), NESTED.get(kind)
    limiting = find_limiting(ask)
    if limiting is None:
        return
    _hold_members(limiting, names, limits, "" if member is None else f"{member}.")
    if member is not None:
        ask.members[member] = Raw(msgspec.json.encode(limiting))


def _hold_members(
    members: Members, names: tuple[str, ...], limits: LimitsConfig, within: str
) -> None:
    most = limits.max_answers
    for name in _CHOICES if most is not None else ():
        asked = read_count(members.get(name))
        if most is not None and asked is not None and asked > most:
            raise BadRequest(f"{within}{name}: at most {most} here", param=f"{within}{name}")
    most = limits.max_output_tokens
    if most is None or not names:
        return
    given = [(name, read_count(members.get(name))) for name in names]
    for name, asked in given:
        if asked is not None and asked > most:
            raise BadRequest(f"{within}{name}: at most {most} tokens here", param=f"{within}{name}")
    if all(asked is None for _, asked in given):
        members[names[0]] = Raw(str(most).encode())
