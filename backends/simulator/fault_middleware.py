"""Faults that replace or corrupt a unary response, as a middleware before the endpoints.

Those that spoil a stream half way are in `wire`.
"""

import asyncio

import msgspec
from aiohttp import web

from backends.simulator.faults import ActiveFault
from backends.simulator.handlers import (
    RequestHandler,
    SimulatorHandlers,
    json_response,
)
from backends.simulator.protocol import error_body
from backends.simulator.wire import STRUCK_FAULTS, reset_connection, wait_forever

_PAGE = "<!doctype html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_GARBAGE = b"\x16\x03\x01 this is not HTTP\r\n\r\n\x00\xff\xfe"


async def apply_faults(
    server: SimulatorHandlers, request: web.Request, handler: RequestHandler
) -> web.StreamResponse:
    """Let the endpoint answer, or do what the faults that are set say."""
    faults = server.faults
    if not faults.active or request.path.startswith("/simulator/"):
        return await handler(request)
    if faults.refuses_connections:  # a connection from before the socket was closed
        reset_connection(request)
        return web.Response()
    struck = faults.take_faults(request.path, stream=await _wants_stream(request))
    for kind, fault in struck:
        answer = await _replace_response(kind, fault, request)
        if answer is not None:
            return answer
    token = STRUCK_FAULTS.set(struck)  # one task may serve many requests of one connection
    try:
        response = await handler(request)
    finally:
        STRUCK_FAULTS.reset(token)
    kinds = {kind for kind, _ in struck}
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        if "cut_json" in kinds:
            return json_response(response.body[: len(response.body) // 2])
        if "truncated_json" in kinds:
            return await _send_truncated(request, response.body)
    return response


async def _replace_response(
    kind: str, fault: ActiveFault, request: web.Request
) -> web.StreamResponse | None:
    """The answer that a fault gives in place of the endpoint's, if it does."""
    answer: web.StreamResponse | None = None
    match kind:
        case "reset_on_accept":
            reset_connection(request)
            answer = web.Response()
        case "slow_headers":
            await asyncio.sleep(fault.delay_s)
        case "silent":
            await wait_forever()
        case "garbage":
            if request.transport is not None:
                request.transport.write(_GARBAGE)
                request.transport.close()
            answer = web.Response()
        case "html_200":
            answer = web.Response(text=_PAGE.format("Welcome"), content_type="text/html")
        case "json_200_error":
            answer = json_response(
                error_body(500, "Simulated error with 200.", "InternalServerError")
            )
        case "redirect":
            answer = web.Response(status=307, headers={"location": fault.location})
        case "status":
            answer = _build_status_response(fault)
    return answer


def _build_status_response(fault: ActiveFault) -> web.Response:
    headers = {"retry-after": fault.retry_after} if fault.retry_after is not None else {}
    if fault.html:
        page = _PAGE.format(fault.status)
        return web.Response(
            text=page, status=fault.status, content_type="text/html", headers=headers
        )
    body = (
        error_body(fault.status, f"Simulated {fault.status}.", "SimulatedError")
        if fault.body is None
        else msgspec.json.encode(fault.body)
    )
    response = json_response(body, fault.status)
    response.headers.update(headers)
    return response


async def _send_truncated(request: web.Request, body: bytes) -> web.StreamResponse:
    """Promise the whole body, send half of it, and hang up."""
    response = web.StreamResponse(headers={"content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _wants_stream(request: web.Request) -> bool:
    """Whether the body asks for a stream; one that cannot be read does not."""
    if request.method != "POST":
        return False
    try:
        return msgspec.json.decode(await request.read(), type=_StreamFlag).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


class _StreamFlag(msgspec.Struct):
    stream: bool | None = None
