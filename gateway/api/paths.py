"""The paths that a gateway serves, for whoever asks for one that it does not."""

import difflib
import re
from typing import Any

from litestar import Litestar

from gateway.api.surfaces import ADMIN_PREFIX, is_for_clients, is_for_operators
from gateway.service.request.named_endpoints import NAMED, REFUSED

_GETS = {endpoint.url_path: endpoint.method for endpoint in NAMED}
_HIDDEN = ("HEAD", "OPTIONS")
_PREFIX = re.compile(r"^(?:/(?:api|openai|v1))+(?=/)")


def list_paths(app: Litestar, *, operators: bool = False) -> dict[str, list[str]]:
    """Return the methods of each path on the clients' port, or on the operators', sorted."""
    found: dict[str, list[str]] = {}
    for route in sorted(app.routes, key=lambda route: route.path_format):
        if route.path_format in REFUSED:
            continue
        # What reads its request by itself says no methods; most of these take a body.
        methods: Any = getattr(route, "methods", None) or (_GETS.get(route.path_format, "POST"),)
        found[route.path_format] = sorted(set(methods) - {*_HIDDEN})
    if not any(path.startswith(ADMIN_PREFIX) for path in found):
        return found
    if operators:
        return {path: found[path] for path in found if is_for_operators(path)}
    keyed = app.state.runtime.gateway.keys is not None
    return {path: found[path] for path in found if is_for_clients(path, keyed=keyed)}


def describe_missing_path(path: str, served: dict[str, list[str]]) -> str:
    """Return what to say of a path that is not served: what was meant, and what there is."""
    meant = _find_meant(path, list(served))
    hint = f" (did you mean {meant}?)" if meant else ""
    listed = ", ".join(f"{' and '.join(methods)} {one}" for one, methods in served.items())
    return f"there is no {path[:200]} here{hint}; there are: {listed}"


def _find_meant(path: str, served: list[str]) -> str | None:
    """Return the path that differs by a prefix (a base URL with one /v1 too many) or a typo."""
    bare = _PREFIX.sub("", path.rstrip("/").lower())
    for known in served:
        if _PREFIX.sub("", known) == bare:
            return known
    close = difflib.get_close_matches(path[:200], served, n=1, cutoff=0.75)
    return close[0] if close else None
