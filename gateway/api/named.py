"""vLLM's other endpoints: to a model by its name, or refused with the reason."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from litestar import HttpMethod, Request, asgi, route
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from gateway.api.incoming import choose_request_id
from gateway.api.inference import serve_request
from gateway.config import TimeoutsConfig
from gateway.service.client.error_shapes import find_error_shape
from gateway.service.client.errors import NotOffered
from gateway.service.client.response import ResponseWriter
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import decode_members
from gateway.service.request.caller import Caller
from gateway.service.request.client_body import parse_form
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import decode_member, decode_text
from gateway.service.request.named_endpoints import (
    CANCEL_RESPONSE,
    GET_RESPONSE,
    NAMED,
    REFUSED,
    NamedEndpoint,
)
from gateway.service.request.named_request import make_named_request
from gateway.service.request.routing_table import ModelNames

_flag = msgspec.json.Decoder(bool | None)
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
Serve = Callable[..., Any]


def make_handlers(gateway: RequestPipeline, timeouts: TimeoutsConfig) -> list[Any]:
    """Make the route handlers."""
    serve = partial(serve_request, gateway=gateway, timeouts=timeouts)
    handlers = [_make_named_handler(endpoint, gateway, serve) for endpoint in NAMED]
    handlers += [
        _make_response_handler(GET_RESPONSE, gateway, serve),
        _make_response_handler(CANCEL_RESPONSE, gateway, serve),
    ]
    return [*handlers, *(_make_refusal(path, reason) for path, reason in REFUSED.items())]


def _make_named_handler(endpoint: NamedEndpoint, gateway: RequestPipeline, serve: Serve) -> Any:
    @asgi(endpoint.url_path, copy_scope=False)
    async def handle_named(scope: Scope, receive: Receive, send: Send) -> None:
        def decode(body: bytes, caller: Caller | None) -> InferenceRequest:
            names = gateway.planner.names if caller is None else caller.names
            if endpoint.multipart:
                return _decode_form(endpoint, names, _find_type(scope), body)
            if endpoint.method == "GET":
                (model,) = _parse_query(scope).get("model", [None])[:1]
                return make_named_request(endpoint, {}, model, names, stream=False)
            members = decode_members(body)
            return make_named_request(
                endpoint,
                members,
                decode_text(members, "model"),
                names,
                stream=bool(decode_member(members, "stream", _flag)),
            )

        await serve(endpoint, decode, scope=scope, receive=receive, send=send)

    return handle_named


def _make_response_handler(endpoint: NamedEndpoint, gateway: RequestPipeline, serve: Serve) -> Any:
    """Make the handler of what asks for a response by its id: its backend has it."""
    path = endpoint.url_path.replace("{id}", "{response_id:str}")

    # No @asgi: Litestar finds none whose path has a parameter.
    @route(path, http_method=HttpMethod(endpoint.method), name=endpoint.value)
    async def handle_response(request: Request[Any, Any, Any]) -> ASGIApp:
        scope: Scope = request.scope

        def decode(_: bytes, caller: Caller | None) -> InferenceRequest:
            response_id = str(scope["path_params"]["response_id"])
            tenant = None if caller is None else caller.tenant
            place = gateway.dispatcher.response_ids.find_place(response_id, "response_id", tenant)
            asked = _parse_query(scope)
            stream = asked.get("stream", ["false"])[0].lower() in {"true", "1"}
            path = endpoint.url_path.replace("{id}", response_id)
            after = asked.get("starting_after", [""])[0]
            if stream:
                more = f"&starting_after={after}" if _WHOLE.fullmatch(after) else ""
                path = f"{path}?stream=true{more}"
            ask = make_named_request(
                endpoint, {}, place.deployment.model, gateway.planner.names, stream=stream
            )
            ask.place, ask.path = place, path
            return ask

        async def answer(_: Scope, receive: Receive, send: Send) -> None:
            await serve(endpoint, decode, scope=scope, receive=receive, send=send)

        return answer

    return handle_response


def _make_refusal(path: str, reason: str) -> Any:
    @asgi(path, copy_scope=False)
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - Litestar wants all three
        http: HTTPScope = scope  # type: ignore[assignment]
        request_id = choose_request_id(http["headers"])
        reply = ResponseWriter(send, request_id, shape=find_error_shape(path))
        await reply.send_error(NotOffered(f"{path} is {reason}"))

    return refuse


def _decode_form(
    endpoint: NamedEndpoint, names: ModelNames, content_type: bytes, body: bytes
) -> InferenceRequest:
    form = parse_form(content_type, body)
    ask = make_named_request(endpoint, {}, form.model, names, stream=form.stream)
    ask.form, ask.has_media = form, True
    return ask


def _find_type(scope: Scope) -> bytes:
    found = (value for name, value in scope["headers"] if name == b"content-type")
    return next(found, b"")


def _parse_query(scope: Scope) -> dict[str, list[str]]:
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1"), max_num_fields=20)
