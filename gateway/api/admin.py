"""`/admin/backends`: what operators see of the backends, and draining one by hand.

Served on the operators' port alone; without one these paths do not exist.
"""

from typing import Any

import msgspec
from litestar import get

from backends.registry import Backend
from gateway.api.incoming import RequestHead
from gateway.api.json_endpoint import MakeAnswer, make_json_handler
from gateway.config import TimeoutsConfig
from gateway.service.client.errors import NotFound
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.members import Members, decode_text


def make_handlers(gateway: RequestPipeline, timeouts: TimeoutsConfig) -> list[Any]:
    """Make the route handlers."""

    @get("/admin/backends", name="admin-backends", sync_to_thread=False)
    def list_states() -> dict[str, Any]:
        """List every backend: its models, its state, what is in flight there."""
        return {"backends": [_describe_backend(gateway, one) for one in gateway.backends]}

    def change_drain(*, drained: bool) -> MakeAnswer:
        def change(_: RequestHead, members: Members) -> bytes:
            backend = _find_backend(gateway, decode_text(members, "backend") or "")
            backend.set_drained(drained=drained)
            return msgspec.json.encode(_describe_backend(gateway, backend))

        return change

    return [
        list_states,
        *(
            make_json_handler(
                f"/admin/backends/{name}",
                f"admin-{name}",
                change_drain(drained=name == "drain"),
                gateway,
                timeouts,
            )
            for name in ("drain", "undrain")
        ),
    ]


def _find_backend(gateway: RequestPipeline, named: str) -> Backend:
    """Return the backend of this label or URL. Raises NotFound."""
    for backend in gateway.backends:
        if named.rstrip("/") in {backend.label, backend.root}:
            return backend
    known = ", ".join(backend.label for backend in gateway.backends)
    raise NotFound(f"no backend {named[:200]!r}; there are: {known}", code="backend_not_found")


def _describe_backend(gateway: RequestPipeline, backend: Backend) -> dict[str, Any]:
    of = (one.model for one in gateway.deployments if backend in one.backends)
    usable = "up" if backend.is_in_use else "ejected"
    return {
        "backend": backend.label,
        "models": list(dict.fromkeys(of)),
        "state": "drained" if backend.drained else usable,
        "inflight": backend.sent_requests,
    }
