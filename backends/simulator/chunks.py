"""Responses in vLLM's shapes: the events of a stream and the body of a unary answer."""

from collections.abc import Sequence
from typing import Any, Literal
from zlib import crc32

import msgspec

from backends.simulator.answers import SimulatedCompletion
from backends.simulator.engine_request import RequestCost
from backends.simulator.spec import SimulatorSpec

DONE = b"data: [DONE]\n\n"
SYSTEM_FINGERPRINT = "simulated"
CompletionKind = Literal["chat", "completion"]

_json = msgspec.json.Encoder().encode
_OBJECTS = {"chat": "chat.completion", "completion": "text_completion"}
_STREAM_OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}
_TAIL = b',"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
_TEXT_TAIL = b',"logprobs":null,"finish_reason":null,"stop_reason":null,"token_ids":null}]}\n\n'


class StreamFrames:
    """The server-sent events of one stream.

    Everything but the token's text is formatted once: a plain token costs one JSON string and one
    join. Log probabilities and continuous usage take the slow way.
    """

    def __init__(
        self,
        kind: CompletionKind,
        response_id: str,
        created: int,
        model: str,
        answers: Sequence[SimulatedCompletion],
        *,
        top_logprobs: int | None = None,
        continuous_usage: bool = False,
    ) -> None:
        self._kind = kind
        self._answers = answers
        self._top = top_logprobs
        self._continuous = continuous_usage
        self._head: dict[str, Any] = {
            "id": response_id,
            "object": _STREAM_OBJECTS[kind],
            "created": created,
            "model": model,
        }
        opened = b"data: " + _json(self._head)[:-1] + b',"choices":[{"index":'
        key = b',"delta":{"content":' if kind == "chat" else b',"text":'
        self._tail = b"}" + _TAIL if kind == "chat" else _TEXT_TAIL
        self._opened = [opened + b"%d" % a.index + key for a in answers]
        self._fast = [
            a.tool is None and not a.echo and top_logprobs is None and not continuous_usage
            for a in answers
        ]

    def format_role(self, answer: SimulatedCompletion) -> bytes:
        """The chunk that only says who speaks; a completion has none."""
        choice = {
            "index": answer.index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        chunk = {**self._head, "choices": [choice], "prompt_token_ids": None}
        if self._continuous:
            chunk["usage"] = build_usage(answer.tokens_in, 0)
        return encode_event(chunk)

    def format_token(self, answer: SimulatedCompletion, k: int) -> bytes:
        """The chunk of an answer's k-th token; the last one says why it ends."""
        index = answer.index
        if self._fast[index] and k + 1 < len(answer.pieces):
            return b"".join((self._opened[index], _json(answer.pieces[k]), self._tail))
        return self._format_token_slowly(answer, k)

    def _format_token_slowly(self, answer: SimulatedCompletion, k: int) -> bytes:
        piece = answer.pieces[k]
        last = k + 1 == len(answer.pieces)
        choice: dict[str, Any] = {"index": answer.index}
        if self._kind == "chat":
            choice["delta"] = _build_delta(answer, k)
            choice["logprobs"] = (
                None if self._top is None else {"content": [_build_logprob(piece, self._top)]}
            )
        else:
            echo = answer.echo if k == 0 else ()
            choice["text"] = "".join((*echo, piece))
            choice["logprobs"] = None
            if self._top is not None:
                offset = sum(map(len, (*answer.echo, *answer.pieces[:k]))) if k else 0
                choice["logprobs"] = _legacy_logprobs([piece], offset, self._top, echo)
        choice["finish_reason"] = answer.finish_reason if last else None
        if last or self._kind == "completion":
            choice["stop_reason"] = answer.stop_reason if last else None
        choice["token_ids"] = None
        chunk = {**self._head, "choices": [choice]}
        if last:
            chunk["system_fingerprint"] = SYSTEM_FINGERPRINT
        if self._continuous:
            chunk["usage"] = build_usage(answer.tokens_in, k + 1)
        return encode_event(chunk)

    def format_final_usage(self, tail: dict[str, Any]) -> bytes:
        """The chunk without choices that ends a stream whose usage was asked for."""
        tail = {key: value for key, value in tail.items() if value is not None}
        tail["usage"] = {key: n for key, n in tail["usage"].items() if n is not None}
        return encode_event(
            {**self._head, "choices": [], "system_fingerprint": SYSTEM_FINGERPRINT, **tail}
        )


def format_unary(
    kind: CompletionKind,
    response_id: str,
    created: int,
    model: str,
    answers: Sequence[SimulatedCompletion],
    tail: dict[str, Any],
    *,
    top_logprobs: int | None = None,
) -> bytes:
    """The body of an answer that is not streamed."""
    choose = _chat_choice if kind == "chat" else _completion_choice
    return _json(
        {
            "id": response_id,
            "object": _OBJECTS[kind],
            "created": created,
            "model": model,
            "choices": [choose(a, top_logprobs) for a in answers],
            "service_tier": None,
            "system_fingerprint": SYSTEM_FINGERPRINT,
            **tail,
            "kv_transfer_params": None,
        }
    )


def report_cost(
    spec: SimulatorSpec,
    answers: Sequence[SimulatedCompletion],
    truths: Sequence[RequestCost],
    prompt_tokens: int,
) -> dict[str, Any]:
    """`usage`, `metrics` and `simulated`: what a response says about its own cost."""
    cached = sum(answer.cached_tokens for answer in answers)
    details = {"cached_tokens": cached} if spec.prompt_tokens_details else None
    counted = build_usage(prompt_tokens, sum(a.tokens_out for a in answers))
    metrics = None
    if spec.per_request_metrics and len(truths) == 1:
        # In wall time, so that they agree with the clock of whoever asked.
        truth, ms = truths[0], 1000.0 / spec.speed
        metrics = {
            "time_to_first_token_ms": truth.first_token_seconds * ms,
            "generation_time_ms": (truth.seconds - truth.first_token_seconds) * ms,
            "queue_time_ms": truth.queue_seconds * ms,
        }
    return {
        "usage": {**counted, "prompt_tokens_details": details},
        "metrics": metrics,
        "simulated": {
            "energy_joules": sum(t.total_joules for t in truths),
            "seconds": max((t.seconds for t in truths), default=0.0),
            "speed": spec.speed,
        },
    }


def build_usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The usage object as vLLM has it."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def encode_event(chunk: dict[str, Any]) -> bytes:
    """One server-sent event of data alone."""
    return b"data: " + _json(chunk) + b"\n\n"


def _build_delta(answer: SimulatedCompletion, k: int) -> dict[str, Any]:
    if answer.tool is None:
        return {"content": answer.pieces[k]}
    if k == 0:
        function = {"name": answer.tool.name, "arguments": ""}
        call = {"id": answer.tool.id, "type": "function", "index": 0, "function": function}
        return {"tool_calls": [call]}
    if not answer.pieces[k]:
        return {"content": ""}
    return {"tool_calls": [{"index": 0, "function": {"arguments": answer.pieces[k]}}]}


def _chat_choice(answer: SimulatedCompletion, top: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.full_text if answer.tool is None else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
    }
    if answer.tool is not None:
        function = {"name": answer.tool.name, "arguments": answer.full_text}
        message["tool_calls"] = [{"id": answer.tool.id, "type": "function", "function": function}]
    logprobs = None if top is None else {"content": [_build_logprob(p, top) for p in answer.pieces]}
    return {
        "index": answer.index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": None,
    }


def _completion_choice(answer: SimulatedCompletion, top: int | None) -> dict[str, Any]:
    return {
        "index": answer.index,
        "text": answer.full_text,
        "logprobs": None if top is None else _legacy_logprobs(answer.pieces, 0, top, answer.echo),
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
    }


def _fake_logprob(piece: str) -> float:
    """A log probability that looks like one and is always the same for the same token."""
    return -0.01 - (crc32(piece.encode()) % 200) / 100.0


def _list_top_logprobs(piece: str, count: int) -> list[tuple[str, float]]:
    chance = _fake_logprob(piece)
    others = [(f"{piece}~{k}", chance - 0.5 * k) for k in range(1, count)]
    return [(piece, chance), *others] if count else []


def _build_logprob(piece: str, top: int) -> dict[str, Any]:
    def build_entry(token: str, chance: float) -> dict[str, Any]:
        return {"token": token, "logprob": chance, "bytes": list(token.encode())}

    tops = [build_entry(*pair) for pair in _list_top_logprobs(piece, top)]
    return {**build_entry(piece, _fake_logprob(piece)), "top_logprobs": tops}


def _legacy_logprobs(
    pieces: Sequence[str], offset: int, top: int, echo: Sequence[str] = ()
) -> dict[str, Any]:
    """Log probabilities as completions have them; nothing foretells the first token of a prompt."""
    if echo and list(pieces) == [""]:
        pieces = ()
    shown = [*echo, *pieces]
    offsets = []
    for piece in shown:
        offsets.append(offset)
        offset += len(piece)
    chances: list[float | None] = [_fake_logprob(piece) for piece in shown]
    tops: list[Any] = [dict(_list_top_logprobs(piece, top)) for piece in shown] if top else []
    if echo:
        chances[0] = None
        tops[:1] = [None] if top else []
    return {
        "text_offset": offsets,
        "token_logprobs": chances,
        "tokens": shown,
        "top_logprobs": tops or None,
    }
