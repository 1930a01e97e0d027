"""vLLM's endpoints around tokens: chats in batches, prompts rendered, tokens in and tokens out."""

import time
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import Any, NoReturn
from uuid import uuid4

import msgspec
from aiohttp import web

from backends.simulator import chunks
from backends.simulator.answers import plan_chat, plan_completion
from backends.simulator.handlers import SimulatorHandlers, json_response
from backends.simulator.prompts import measure_chat_prompt, measure_prompts
from backends.simulator.protocol import (
    ChatRequest,
    CompletionRequest,
    SimulatorError,
)
from backends.simulator.single_answer import serve_answer
from backends.simulator.token_requests import (
    BatchChatRequest,
    DerenderChatRequest,
    DerenderCompletionRequest,
    GeneratedTokens,
    TokensRequest,
    render_chat,
    render_completion,
)
from backends.simulator.typed_requests import MessagesRequest, ResponsesRequest


class TokenHandlers:
    """These endpoints on one simulated server."""

    def __init__(self, server: SimulatorHandlers) -> None:
        self._server = server

    def list_routes(self) -> list[web.RouteDef]:
        """Every endpoint."""
        return [
            web.post("/v1/chat/completions/batch", self.post_batch),
            web.post("/v1/chat/completions/render", self.render_chat),
            web.post("/v1/completions/render", self.render_completions),
            web.post("/v1/responses/render", self.render_responses),
            web.post("/v1/messages/render", self.render_messages),
            web.post("/v1/chat/completions/derender", self.derender_chat),
            web.post("/v1/completions/derender", self.derender_completions),
            web.post("/inference/v1/generate", self.generate),
        ]

    async def post_batch(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions/batch: a choice for each conversation."""
        asked = await self._server.read_body(request, BatchChatRequest)
        if asked.stream or asked.tools or (asked.n or 1) != 1:
            _refuse("a batch has neither streams, tools nor several choices")
        spec, truth = self._server.spec, self._server.engine.truth
        answers, prompt_tokens = [], 0
        for index, chat in enumerate(asked.list_chats()):
            tokens_in, mark = measure_chat_prompt(chat, spec)
            (answer,) = plan_chat(chat, spec, truth, tokens_in, mark)
            answers.append(replace(answer, index=index))
            prompt_tokens += tokens_in
        costs = await self._server.scheduler_loop.run_call(answers)
        tail = chunks.report_cost(spec, answers, costs, prompt_tokens)
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        now, name = int(time.time()), f"chatcmpl-{uuid4().hex}"
        return json_response(
            chunks.format_unary("chat", name, now, spec.model, answers, tail, top_logprobs=top)
        )

    async def render_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions/render: what /inference/v1/generate is to be asked."""
        return self._tell_rendered(await self._server.read_body(request, ChatRequest))

    async def render_responses(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses/render."""
        asked = await self._server.read_body(request, ResponsesRequest)
        return self._tell_rendered(asked.to_chat([]))

    async def render_messages(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/messages/render."""
        asked = await self._server.read_body(request, MessagesRequest)
        return self._tell_rendered(asked.to_chat())

    async def render_completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions/render: one for each prompt."""
        asked = await self._server.read_body(request, CompletionRequest)
        return _tell(render_completion(asked, self._server.spec.model))

    async def derender_chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions/derender: generated tokens as a chat completion."""
        asked = await self._server.read_body(request, DerenderChatRequest)
        made = asked.generate_response
        answers = made.list_answers(asked.prompt_tokens or 0)
        return _tell_completion("chat", made, answers, self._server, asked.prompt_tokens or 0)

    async def derender_completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions/derender."""
        asked = await self._server.read_body(request, DerenderCompletionRequest)
        made = asked.generate_responses
        if not made or len(asked.prompt_tokens or made) != len(made):
            _refuse("prompt_tokens and generate_responses do not match")
        counts = asked.prompt_tokens or [0] * len(made)
        found = [a for one, n in zip(made, counts, strict=True) for a in one.list_answers(n)]
        answers = [replace(answer, index=index) for index, answer in enumerate(found)]
        return _tell_completion("completion", made[0], answers, self._server, sum(counts))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """POST /inference/v1/generate: token ids in, token ids out."""
        asked = await self._server.read_body(request, TokensRequest)
        spec, truth = self._server.spec, self._server.engine.truth
        completion = asked.to_completion()
        (prompt,) = measure_prompts(completion.prompt, spec)
        answers = plan_completion(completion, spec, truth, [prompt])
        if len(answers) != 1:
            _refuse("the simulator generates one choice at a time here")
        frames = asked.make_frames(spec.model, answers[0])

        def close(tail: dict[str, Any]) -> tuple[Iterable[bytes], bytes]:
            return frames.format_closing(tail), chunks.DONE

        return await serve_answer(
            self._server, request, answers[0], prompt[0], bool(asked.stream),
            frames.build_whole, bytes, frames.format_token, close,
        )  # fmt: skip

    def _tell_rendered(self, chat: ChatRequest) -> web.Response:
        measure_chat_prompt(chat, self._server.spec)  # which refuses a chat without messages
        return _tell(render_chat(chat, self._server.spec.model))


def _tell_completion(
    kind: chunks.CompletionKind,
    made: GeneratedTokens,
    answers: list[Any],
    server: SimulatorHandlers,
    prompt_tokens: int,
) -> web.Response:
    tail = chunks.report_cost(server.spec, answers, [], prompt_tokens)
    now = int(time.time())
    return json_response(
        chunks.format_unary(kind, made.request_id, now, server.spec.model, answers, tail)
    )


def _tell(told: Any) -> web.Response:
    return json_response(msgspec.json.encode(told))


def _refuse(why: str) -> NoReturn:
    raise SimulatorError(HTTPStatus.BAD_REQUEST, f"1 validation error: {why}")
