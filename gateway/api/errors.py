"""Errors that Litestar raises itself (404, 405, 413, 500), in the shape of the asked API."""

import logging
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException

from gateway.api.incoming import choose_request_id
from gateway.api.paths import describe_missing_path, list_paths
from gateway.api.surfaces import OPERATOR
from gateway.service.client import headers as names
from gateway.service.client.api_error import ApiError
from gateway.service.client.error_shapes import find_error_shape
from gateway.service.client.errors import BadRequest, MethodNotAllowed, NotFound

_log = logging.getLogger("joulegate")


def show_api_error(request: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    """Show an error of our own that a Litestar handler raised."""
    request_id = choose_request_id(request.scope["headers"])
    shape = find_error_shape(request.url.path)
    return Response(
        shape.encode_body(error, request_id),
        status_code=error.status,
        media_type="application/json",
        headers={
            names.REQUEST_ID: request_id,
            **{name.decode(): value.decode() for name, value in shape.name_request(request_id)},
            **{name.decode(): value.decode() for name, value in error.build_headers()},
        },
    )


def show_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Show an error of Litestar's."""
    shown: ApiError
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            served = list_paths(request.app, operators=bool(request.scope.get(OPERATOR)))
            shown = NotFound(describe_missing_path(request.url.path, served))
        case HTTPStatus.METHOD_NOT_ALLOWED:
            shown = MethodNotAllowed(f"{request.method} is not for {request.url.path[:200]}")
            shown.more_headers = ()  # Litestar knows which methods there are
        case status if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            shown = BadRequest(error.detail or "bad request")
            shown.status = status
        case _:
            return show_bug(request, error)
    response = show_api_error(request, shown)
    response.headers.update(error.headers or {})
    return response


def show_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Log what nobody foresaw, and show nothing of it."""
    _log.error("%s %s: a bug", request.method, request.url.path, exc_info=error)
    return show_api_error(request, ApiError("internal error"))


HANDLERS: Any = {ApiError: show_api_error, HTTPException: show_http_error, Exception: show_bug}
