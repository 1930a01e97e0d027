"""Two ports, one application: which paths are served on the operators' and which on the clients'.

Rules: without `admin` in the config there is one port and nothing here runs. With it, `OPERATORS`
are on its port alone and everything else but the probes is on the clients' port alone; what is not
on a port is a 404 there. Records are on both where clients have API keys: each sees its own on the
clients' port, and operators all. The token is asked for by all operators' paths but `OPEN`, and
compared in a time that tells nothing of it.
"""

from typing import Final

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send
from litestar.utils import normalize_path

from backends.bearer import is_bearer_of
from gateway.api.incoming import choose_request_id
from gateway.service.client.api_error import ApiError
from gateway.service.client.errors import MissingToken, NotFound
from gateway.service.client.response import ResponseWriter
from gateway.surfaces_config import AdminConfig

ADMIN_PREFIX: Final = "/admin/"
OPERATOR: Final = "joulegate.operator"
"""The scope's key that says that a request came to the operators' port, as it may."""
_PROBES: Final = frozenset({"/health", "/ready", "/ping", "/version"})
_OPEN: Final = frozenset({"/metrics", "/load"})
_RECORDS: Final = "/v1/requests/"


def split_surfaces(app: ASGIApp, admin: AdminConfig, port: int, *, keyed: bool) -> ASGIApp:
    """Serve operators on `port` and clients on every other; `keyed`: clients have API keys."""

    async def serve_surface(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # type: ignore[comparison-overlap]
            await app(scope, receive, send)
            return
        http: HTTPScope = scope  # type: ignore[assignment]
        # As the router sees it, to which `//metrics/` is `/metrics`.
        path, server = normalize_path(http["path"]), http["server"]
        on_admin = server is not None and server[1] == port
        served = is_for_operators(path) if on_admin else is_for_clients(path, keyed=keyed)
        if not served and path not in _PROBES:
            error: ApiError | None = NotFound(f"there is no {path[:200]} on this port")
        else:
            error = _find_missing_token(http, path, admin.token) if on_admin else None
        if error is None:
            if on_admin:
                scope[OPERATOR] = True  # type: ignore[typeddict-unknown-key]
            await app(scope, receive, send)
        else:
            await ResponseWriter(send, choose_request_id(http["headers"])).send_error(error)

    return serve_surface


def is_for_operators(path: str) -> bool:
    """Tell whether a path is served on the operators' port alone, where there is one."""
    return path in _OPEN or path.startswith((ADMIN_PREFIX, _RECORDS))


def is_for_clients(path: str, *, keyed: bool) -> bool:
    """Tell whether a path is served on the clients' port beside an operators' one."""
    return not is_for_operators(path) or (keyed and path.startswith(_RECORDS))


def _find_missing_token(scope: HTTPScope, path: str, token: str | None) -> ApiError | None:
    """Return what is wrong with an operator's token; None: nothing, or none is asked for."""
    if path in _PROBES or path in _OPEN or token is None:
        return None
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) == 1 and is_bearer_of(given[0].decode("latin-1"), token):
        return None
    return MissingToken("the operators' token is needed here: Authorization: Bearer TOKEN")
