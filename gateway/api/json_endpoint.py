"""The gateway's own small endpoints: a JSON object in, a JSON object out, errors as everywhere."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from litestar import asgi
from litestar.types import HTTPScope, Receive, Scope, Send

from gateway.api.callers import read_caller_head
from gateway.api.incoming import ClientDisconnected, RequestHead, read_body
from gateway.config import TimeoutsConfig
from gateway.service.client.api_error import ApiError
from gateway.service.client.response import ResponseWriter
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.body import decode_members
from gateway.service.request.members import Members

MakeAnswer = Callable[[RequestHead, Members], bytes]


def make_json_handler(
    path: str,
    name: str,
    make_answer: MakeAnswer,
    gateway: RequestPipeline,
    timeouts: TimeoutsConfig,
) -> Any:
    """Make the handler of a POST; `make_answer` makes the JSON to send, and may raise ApiError."""

    @asgi(path, name=name, copy_scope=False)
    async def handle_json(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment]
        head = read_caller_head(http, gateway.keys)
        reply = ResponseWriter(send, head.request_id)
        try:
            body = await read_body(
                head, receive, limit=gateway.limits.max_body_bytes, seconds=timeouts.body_seconds
            )
            answer = make_answer(head, decode_members(body))
            await reply.send_unary(HTTPStatus.OK.value, answer)
        except ClientDisconnected:
            return
        except ApiError as error:
            await reply.send_error(error)

    return handle_json
