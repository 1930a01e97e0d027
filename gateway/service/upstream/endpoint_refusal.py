"""A model whose server lacks an endpoint: the request's fault, and no failure of the server's."""

from http import HTTPStatus
from typing import Final

from backends.bearer import hide_bearer
from backends.errors import BackendStatusError
from backends.registry import Backend
from gateway.service.client.errors import EndpointNotServed, UpstreamRejection
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NamedEndpoint

_LACKING: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)


def check_endpoint_served(
    ask: InferenceRequest, model: str, backend: Backend, error: BackendStatusError
) -> None:
    """Raise EndpointNotServed where a backend says that it lacks what a named model was asked."""
    if not isinstance(ask.kind, NamedEndpoint) or error.status not in _LACKING:
        return
    told = UpstreamRejection(error.status, hide_bearer(error.body, backend.headers))
    if told.param is not None:
        return
    backend.record_success()
    raise EndpointNotServed(
        f"{model!r} does not serve {ask.kind.url_path} ({told.message})", param="model"
    )
