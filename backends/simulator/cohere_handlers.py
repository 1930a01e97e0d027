"""Cohere's chat API as vLLM has it, answered as a chat in text; its tools are not simulated."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks
from backends.simulator.answers import SimulatedCompletion, plan_chat
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.prompts import measure_chat_prompt
from backends.simulator.protocol import ChatMessage, ChatRequest, SimulatorError
from backends.simulator.single_answer import serve_answer
from backends.simulator.token_requests import render_chat

_REASONS = {"stop": "COMPLETE", "length": "MAX_TOKENS"}


class CohereChatRequest(msgspec.Struct, kw_only=True):
    """The body of /cohere/v2/chat."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
    tools: list[Any] | None = None

    def to_chat(self) -> ChatRequest:
        """Return the chat."""
        return ChatRequest(
            messages=self.messages,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            seed=self.seed,
        )


class CohereHandlers:
    """This endpoint on one simulated server."""

    def __init__(self, server: SimulatorHandlers) -> None:
        self._server = server

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/cohere/v2/chat", self.post_chat),
            web.post("/cohere/v2/chat/render", self.render_chat),
        ]

    async def post_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /cohere/v2/chat."""
        asked = await self._server.read_body(request, CohereChatRequest)
        if asked.tools:
            raise SimulatorError(HTTPStatus.BAD_REQUEST, "tools are not simulated here")
        chat, server = asked.to_chat(), self._server
        tokens_in, mark = measure_chat_prompt(chat, server.spec)
        (answer,) = plan_chat(chat, server.spec, server.engine.truth, tokens_in, mark)
        frames = CohereFrames(answer)

        def close(tail: dict[str, Any]) -> tuple[Iterable[bytes], bytes]:
            return frames.format_closing(tail), chunks.DONE

        return await serve_answer(
            server, request, answer, tokens_in, bool(asked.stream), frames.build_whole,
            frames.format_opening, frames.format_token, close,
        )  # fmt: skip

    async def render_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /cohere/v2/chat/render: what /inference/v1/generate is to be asked."""
        asked = await self._server.read_body(request, CohereChatRequest)
        told = render_chat(asked.to_chat(), self._server.spec.model)
        return json_response(msgspec.json.encode(told))


class CohereFrames:
    """An answer of this API, as a body or as events."""

    def __init__(self, answer: SimulatedCompletion) -> None:
        self._answer = answer
        self._id = uuid4().hex

    def build_whole(self, tail: dict[str, Any]) -> dict[str, Any]:
        """Return the body."""
        content = [{"type": "text", "text": self._answer.full_text}]
        message = {"role": "assistant", "content": content}
        return {"id": self._id, "message": message, **self._build_end(tail)}

    def format_opening(self) -> bytes:
        """Return the events before the first token."""
        message = {"role": "assistant", "content": []}
        opened = _format_event("message-start", id=self._id, delta={"message": message})
        content = {"type": "text", "text": ""}
        return opened + _format_content("content-start", content)

    def format_token(self, k: int) -> bytes:
        """Return the event of the answer's k-th token."""
        return _format_content("content-delta", {"text": self._answer.pieces[k]})

    def format_closing(self, tail: dict[str, Any]) -> Iterable[bytes]:
        """Return the events after the last token."""
        ended = _format_event("message-end", id=self._id, delta=self._build_end(tail))
        return [_format_event("content-end", index=0), ended]

    def _build_end(self, tail: dict[str, Any]) -> dict[str, Any]:
        usage = tail["usage"]
        counted = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
        }
        reason = _REASONS.get(self._answer.finish_reason, "COMPLETE")
        return {
            "finish_reason": reason,
            "usage": {"billed_units": counted, "tokens": counted},
            "simulated": tail["simulated"],
        }


def _format_content(kind: str, content: dict[str, Any]) -> bytes:
    return _format_event(kind, index=0, delta={"message": {"content": content}})


def _format_event(kind: str, **told: Any) -> bytes:
    return chunks.encode_event({"type": kind, **told})
