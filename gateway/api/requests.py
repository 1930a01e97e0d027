"""`GET /v1/requests/{id}`: what became of a recent request."""

from typing import Any

from litestar import Request, get

from gateway.api.callers import find_tenant
from gateway.api.surfaces import OPERATOR
from gateway.service.client.errors import NotFound
from gateway.service.pipeline import RequestPipeline
from gateway.telemetry.recent import ANYBODY


def make_handler(gateway: RequestPipeline) -> Any:
    """Make the route handler."""

    @get("/v1/requests/{request_id:str}", name="request", sync_to_thread=False)
    def get_request(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Return a request's decision, usage, and predicted and observed figures.

        Where there are keys, only what was asked with one of the same tenant; on the operators'
        port, whoever asked it.
        """
        request_id = str(request.path_params["request_id"])
        if request.scope.get(OPERATOR):
            tenant: str | None = ANYBODY
        else:
            tenant = find_tenant(gateway, request.scope["headers"])
        gateway.accounting.flush()
        record = gateway.accounting.recent.get_record(request_id, tenant)
        if record is None:
            raise NotFound(
                f"no recent request {request_id[:128]!r}: unknown, still running, or too long ago",
                code="request_not_found",
            )
        return record.to_dict()

    return get_request
