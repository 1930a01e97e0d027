"""The Responses and the Messages API, answered as chats from an engine."""

import asyncio
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks
from backends.simulator.answers import SimulatedCompletion, plan_chat
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.messages_frames import MessagesFrames
from backends.simulator.prompts import measure_chat_prompt
from backends.simulator.protocol import ChatMessage, ChatRequest, SimulatorError
from backends.simulator.responses_frames import ResponsesFrames
from backends.simulator.single_answer import serve_answer
from backends.simulator.typed_requests import MessagesRequest, ResponsesRequest

_MOST_KEPT = 1000


class _Kept(msgspec.Struct):
    """A response and the conversation that ends with it; `work` is who makes one that is to be."""

    response: dict[str, Any]
    messages: list[ChatMessage]
    work: asyncio.Task[None] | None = None


class TypedHandlers:
    """The endpoints of both APIs on one simulated server; it keeps the last responses."""

    def __init__(self, server: SimulatorHandlers) -> None:
        self._server = server
        self._kept: dict[str, _Kept] = {}

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/v1/responses", self.post_responses),
            web.get("/v1/responses/{id}", self.get_response),
            web.post("/v1/responses/{id}/cancel", self.cancel_response),
            web.post("/v1/messages", self.post_messages),
            web.post("/v1/messages/count_tokens", self.count_tokens),
        ]

    async def post_responses(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses."""
        asked = await self._server.read_body(request, ResponsesRequest)
        before: list[ChatMessage] = []
        if asked.previous_response_id is not None:
            before = self._find(asked.previous_response_id).messages
        response_id = asked.request_id or f"resp_{uuid4().hex}"
        answer, tokens_in = self._plan(asked.to_chat(before))
        model = self._server.spec.model
        frames = ResponsesFrames(asked, response_id, int(time.time()), model, answer)

        def end(tail: dict[str, Any]) -> dict[str, Any]:
            response = frames.build_response(tail)
            if asked.store:
                said = ChatMessage("assistant", answer.full_text)
                self._keep(response_id, _Kept(response, [*before, *asked.read_input(), said]))
            return response

        def close(tail: dict[str, Any]) -> tuple[Iterable[bytes], bytes]:
            end(tail)
            closing = list(frames.format_closing())  # numbered before the end is
            return closing, frames.format_end(tail)

        if asked.background and asked.store and not asked.stream:
            queued = {**frames.build_response(None), "status": "queued"}
            work = self._server.scheduler_loop.start_background(
                self._answer_later(answer, tokens_in, end)
            )
            self._keep(response_id, _Kept(queued, before, work))
            return json_response(msgspec.json.encode(queued))
        return await serve_answer(
            self._server, request, answer, tokens_in, bool(asked.stream), end,
            frames.format_opening, frames.format_token, close,
        )  # fmt: skip

    async def get_response(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/responses/{id}."""
        kept = self._find(request.match_info["id"])
        return json_response(msgspec.json.encode(kept.response))

    async def cancel_response(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses/{id}/cancel: as at vLLM, only of background ones."""
        kept = self._find(request.match_info["id"])
        if kept.work is not None:
            kept.work.cancel()
            await asyncio.gather(kept.work, return_exceptions=True)
            kept.work = None
            kept.response["status"] = "cancelled"
            return json_response(msgspec.json.encode(kept.response))
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            "Cannot cancel a synchronous response.",
            "invalid_request_error",
            "response_id",
        )

    async def post_messages(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages."""
        try:
            asked = await self._server.read_body(request, MessagesRequest)
            if asked.max_tokens is None:
                raise SimulatorError(  # noqa: TRY301 - every refusal takes this API's shape
                    HTTPStatus.BAD_REQUEST, "1 validation error: max_tokens: Field required"
                )
            answer, tokens_in = self._plan(asked.to_chat())
        except SimulatorError as error:
            return _refuse(error)
        message_id = f"chatcmpl-{request.headers.get('x-request-id') or uuid4().hex}"
        frames = MessagesFrames(message_id, self._server.spec.model, answer)

        def close(tail: dict[str, Any]) -> tuple[Iterable[bytes], bytes]:
            return frames.format_closing(tail), frames.format_end()

        return await serve_answer(
            self._server, request, answer, tokens_in, bool(asked.stream), frames.build_message,
            frames.format_opening, frames.format_token, close,
        )  # fmt: skip

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages/count_tokens."""
        try:
            asked = await self._server.read_body(request, MessagesRequest)
            tokens_in, _ = measure_chat_prompt(asked.to_chat(), self._server.spec)
        except SimulatorError as error:
            return _refuse(error)
        return json_response(msgspec.json.encode({"input_tokens": tokens_in}))

    def _plan(self, chat: ChatRequest) -> tuple[SimulatedCompletion, int]:
        spec, engine = self._server.spec, self._server.engine
        tokens_in, mark = measure_chat_prompt(chat, spec)
        answers = plan_chat(chat, spec, engine.truth, tokens_in, mark)
        (answer,) = self._server.prefix_cache.cache_chat(chat, answers)
        return answer, tokens_in

    async def _answer_later(
        self,
        answer: SimulatedCompletion,
        tokens_in: int,
        end: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        """Let the engine make a background response, and keep it."""
        costs = await self._server.scheduler_loop.run_call([answer])
        end(chunks.report_cost(self._server.spec, [answer], costs, tokens_in))

    def _find(self, response_id: str) -> _Kept:
        kept = self._kept.get(response_id)
        if kept is None:
            raise SimulatorError(
                HTTPStatus.NOT_FOUND,
                f"Response with id '{response_id}' not found.",
                "invalid_request_error",
                "response_id",
            )
        return kept

    def _keep(self, response_id: str, kept: _Kept) -> None:
        self._kept[response_id] = kept
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def _refuse(error: SimulatorError) -> web.Response:
    """The same refusal in Anthropic's shape."""
    inner = msgspec.json.decode(error.body)["error"]
    told = {"type": "error", "error": {"type": inner["type"], "message": inner["message"]}}
    return json_response(msgspec.json.encode(told), error.status)
