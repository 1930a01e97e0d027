"""The config's `headers`: which pass through, beside those that the gateway makes itself."""

import re
from typing import Final

from msgspec import Struct

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_FRAMING: Final = (
    r"connection|keep-alive|te|trailers?|transfer-encoding|upgrade|host|expect|date|server|via"
    r"|content-(?:type|length|encoding)|accept-encoding|proxy-.*"
)
_OWN: Final = r"x-request-id|x-joulegate-.*"
_CREDENTIALS: Final = r"authorization|x-api-key|cookie"
_REFUSED_TO_BACKENDS: Final = {
    _FRAMING: "belongs to one connection",
    _CREDENTIALS: "is a client's credential; backends get their `api_key`",
    rf"{_OWN}|traceparent|endpoint-load-metrics-format": "is sent by the gateway itself",
}
_REFUSED_TO_CLIENTS: Final = {
    _FRAMING: "belongs to one connection",
    r"set-cookie": "is a credential of the gateway's",
    rf"{_OWN}|request-id|retry-after|cache-control|x-accel-buffering|endpoint-load-metrics"
    r"|x-ratelimit-.*|access-control-.*": "is sent by the gateway itself",
}


class HeadersConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Headers that pass through as they come, by name and in both directions: none by default.

    `to_backends` are a request's own, sent to whichever backend is asked; `to_clients` those of the
    backend that answered (its errors are worded anew, without them). What the gateway makes itself
    is sent either way: request id, trace context, the load header, limits of API keys. Credentials
    and what belongs to a connection cannot pass.
    """

    to_backends: tuple[str, ...] = ()
    to_clients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names("to_backends", self.to_backends, _REFUSED_TO_BACKENDS)
        _check_names("to_clients", self.to_clients, _REFUSED_TO_CLIENTS)


def _check_names(key: str, names: tuple[str, ...], refused: dict[str, str]) -> None:
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{key}: {name[:80]!r} is not the name of a header")
        for pattern, why in refused.items():
            if re.fullmatch(pattern, name.lower()):
                raise ValueError(f"{key}: {name!r} cannot pass: it {why}")
