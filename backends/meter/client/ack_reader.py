"""The meter's answer to a batch, from its bytes: whole and possible, or refused."""

from typing import Final

import msgspec

from backends.errors import BackendError
from backends.meter.protocol import EnergyObservation, MeterAck, UnattributedEnergy
from backends.sse import UNREADABLE

_LIMIT: Final = 1 << 53

_decoder = msgspec.json.Decoder(MeterAck)


def read_ack(raw: bytes) -> MeterAck:
    """Return an answer whose numbers are possible. Raises BackendError."""
    try:
        answer = _decoder.decode(raw)
    except UNREADABLE as error:
        raise BackendError(str(error)) from None
    told: tuple[EnergyObservation | UnattributedEnergy, ...] = (
        *answer.observations,
        *answer.spendings,
    )
    if not all(0 <= one.number < _LIMIT and 0 <= one.microjoules < _LIMIT for one in told):
        raise BackendError("an answer with a number out of bounds")
    host = answer.host
    if host is not None and not (
        0 <= host.microjoules < _LIMIT and 0 <= host.microseconds < _LIMIT
    ):
        raise BackendError("an answer with a host's energy out of bounds")
    return answer
