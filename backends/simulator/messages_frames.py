"""Messages of Anthropic's API in vLLM's shapes: the body, and the events of a stream."""

from collections.abc import Iterator
from typing import Any

import msgspec

from backends.simulator.answers import SimulatedCompletion

_json = msgspec.json.Encoder().encode
_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessagesFrames:
    """The events of one message."""

    def __init__(self, message_id: str, model: str, answer: SimulatedCompletion) -> None:
        self._head = {"id": message_id, "type": "message", "role": "assistant", "model": model}
        self._answer = answer

    @property
    def _stop(self) -> dict[str, Any]:
        answer = self._answer
        if answer.stop_reason is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": answer.stop_reason}
        reason = _STOP_REASONS[answer.finish_reason]
        if answer.tool is not None and reason == "end_turn":
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": None}

    def build_message(self, tail: dict[str, Any]) -> dict[str, Any]:
        """The whole message; `tail` is what it says of its cost."""
        answer = self._answer
        block: dict[str, Any] = {"type": "text", "text": answer.full_text}
        if answer.tool is not None:
            block = {**self._make_block(), "input": _read_arguments(answer.full_text)}
        return {
            **self._head,
            "content": [block],
            **self._stop,
            "usage": build_messages_usage(tail["usage"]),
            "simulated": tail["simulated"],
        }

    def format_opening(self) -> bytes:
        """The events before the first token."""
        usage = {"input_tokens": self._answer.tokens_in, "output_tokens": 0}
        opened: dict[str, Any] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        return _event("message_start", message={**opened, "usage": usage}) + _event(
            "content_block_start", index=0, content_block=self._make_block()
        )

    def format_token(self, k: int) -> bytes:
        """The event of the k-th token; one without text has none."""
        piece = self._answer.pieces[k]
        if not piece:
            return b""
        delta = {"type": "text_delta", "text": piece}
        if self._answer.tool is not None:
            delta = {"type": "input_json_delta", "partial_json": piece}
        return _event("content_block_delta", index=0, delta=delta)

    def format_closing(self, tail: dict[str, Any]) -> Iterator[bytes]:
        """The events after the last token, but for the very last."""
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=self._stop, usage=build_messages_usage(tail["usage"]))

    def format_end(self) -> bytes:
        """The last event."""
        return _event("message_stop")

    def _make_block(self) -> dict[str, Any]:
        tool = self._answer.tool
        if tool is None:
            return {"type": "text", "text": ""}
        return {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}


def build_messages_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The same counts as Anthropic has them: cached tokens apart."""
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens", 0)
    found = {
        "input_tokens": usage["prompt_tokens"] - cached,
        "output_tokens": usage["completion_tokens"],
    }
    return {**found, "cache_read_input_tokens": cached} if details else found


def _read_arguments(text: str) -> Any:
    """The arguments as JSON; those that were cut off are none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _json({"type": kind, **fields}))
