"""Requests that hold tokens or are turned into them, and the answers that hold tokens."""

import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import msgspec

from backends.simulator import chunks, tokens
from backends.simulator.answers import SimulatedCompletion
from backends.simulator.prompts import list_prompts
from backends.simulator.protocol import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    StreamOptions,
    TopLogprobs,
)

_SAMPLED = ("max_tokens", "min_tokens", "ignore_eos", "stop", "temperature", "seed", "n")


class BatchChatRequest(GenerationRequest, kw_only=True):
    """The body of /v1/chat/completions/batch: several conversations."""

    messages: list[list[ChatMessage]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: TopLogprobs | None = 0
    tools: list[Any] | None = None

    def list_chats(self) -> list[ChatRequest]:
        """Return a chat for each conversation."""
        shared = {field: getattr(self, field) for field in self.__struct_fields__}
        return [
            ChatRequest(**{**shared, "messages": messages, "stream": False, "tools": None})
            for messages in self.messages
        ]


class SamplingParams(msgspec.Struct, kw_only=True):
    """What /inference/v1/generate takes of vLLM's sampling parameters; the rest is ignored."""

    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: str | list[str] | None = None
    temperature: float | None = None
    seed: int | None = None
    n: int | None = 1


class TokensRequest(msgspec.Struct, kw_only=True):
    """The body of /inference/v1/generate."""

    token_ids: list[int]
    sampling_params: SamplingParams
    model: str | None = None
    request_id: str | None = None
    output_mode: str = "tokens"
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    def to_completion(self) -> CompletionRequest:
        """Return the same as a completion."""
        asked = msgspec.structs.asdict(self.sampling_params)
        return CompletionRequest(prompt=[self.token_ids], **asked)

    def make_frames(self, model: str, answer: SimulatedCompletion) -> "TokenFrames":
        """Return what shapes the answer."""
        options = self.stream_options
        return TokenFrames(
            self.request_id or uuid4().hex,
            model,
            answer,
            wants_text=self.output_mode == "text",
            wants_usage=options is not None and options.include_usage,
        )


class GeneratedChoice(msgspec.Struct, kw_only=True):
    """A choice of what /inference/v1/generate has answered."""

    index: int
    token_ids: list[int] | None = None
    finish_reason: str | None = "stop"


class GeneratedTokens(msgspec.Struct, kw_only=True):
    """What /inference/v1/generate has answered."""

    choices: list[GeneratedChoice]
    request_id: str = ""

    def list_answers(self, tokens_in: int) -> list[SimulatedCompletion]:
        """Return the choices with their texts."""
        return [
            SimulatedCompletion(
                choice.index,
                tokens_in,
                [tokens.decode_ids([token]) for token in choice.token_ids or ()],
                choice.finish_reason or "stop",
            )
            for choice in self.choices
        ]


class DerenderChatRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/chat/completions/derender, of whole answers only."""

    generate_response: GeneratedTokens
    model: str | None = None
    prompt_tokens: int | None = None


class DerenderCompletionRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/completions/derender, of whole answers only."""

    generate_responses: list[GeneratedTokens]
    model: str | None = None
    prompt_tokens: list[int] | None = None


class TokenFrames:
    """The answer of /inference/v1/generate, as a body or as events."""

    def __init__(
        self,
        request_id: str,
        model: str,
        answer: SimulatedCompletion,
        *,
        wants_text: bool,
        wants_usage: bool,
    ) -> None:
        mode = "text" if wants_text else "tokens"
        self._head = {"request_id": request_id, "output_mode": mode}
        self._model, self._answer = model, answer
        self._text, self._usage = wants_text, wants_usage

    def build_whole(self, tail: dict[str, Any]) -> dict[str, Any]:
        """Return the body."""
        answer = self._answer
        choice = self._build_choice(answer.pieces, answer.finish_reason)
        told = {"model": self._model, "created": int(time.time()), "choices": [choice], **tail}
        return {**self._head, **told}

    def format_token(self, k: int) -> bytes:
        """Return the event of the answer's k-th token."""
        last = k + 1 == len(self._answer.pieces)
        reason = self._answer.finish_reason if last else None
        choice = self._build_choice(self._answer.pieces[k : k + 1], reason)
        return self._format_event(choices=[choice])

    def format_closing(self, tail: dict[str, Any]) -> Iterable[bytes]:
        """Return the events after the last token: the usage, where it was asked for."""
        return [self._format_event(choices=[], **tail)] if self._usage else []

    def _build_choice(self, pieces: list[str], reason: str | None) -> dict[str, Any]:
        choice = {
            "index": 0,
            "finish_reason": reason,
            "stop_reason": None,
            "token_ids": [tokens.encode_piece(piece) for piece in pieces],
            "logprobs": None,
        }
        return {**choice, "text": "".join(pieces)} if self._text else choice

    def _format_event(self, **told: Any) -> bytes:
        return chunks.encode_event({**self._head, **told})


def render_chat(chat: ChatRequest, model: str) -> dict[str, Any]:
    """Return what /inference/v1/generate is to be asked for a chat."""
    words = []
    for message in chat.messages:
        parts = message.content if isinstance(message.content, list) else []
        said = message.content if isinstance(message.content, str) else ""
        said += "".join(str(part.get("text", "")) for part in parts)
        words.append(f"{message.role}: {said}\n")
    return _render(tokens.encode_text("".join(words)), chat, chat.asked_tokens, model)


def render_completion(asked: CompletionRequest, model: str) -> list[dict[str, Any]]:
    """Return what /inference/v1/generate is to be asked for each prompt."""
    found = []
    for given in list_prompts(asked.prompt):
        ids = tokens.encode_text(given) if isinstance(given, str) else given
        found.append(_render(ids, asked, asked.max_tokens, model))
    return found


def _render(
    ids: list[int], asked: GenerationRequest, limit: int | None, model: str
) -> dict[str, Any]:
    sampling = {name: getattr(asked, name) for name in _SAMPLED} | {"max_tokens": limit}
    return {
        "request_id": uuid4().hex,
        "token_ids": ids,
        "sampling_params": sampling,
        "model": model,
        "stream": asked.stream,
    }
