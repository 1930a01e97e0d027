"""Responses of the Responses API in vLLM's shapes: the body, and the events of a stream."""

from collections.abc import Iterator
from typing import Any

import msgspec

from backends.simulator.answers import SimulatedCompletion
from backends.simulator.typed_requests import ResponsesRequest

_json = msgspec.json.Encoder().encode


class ResponsesFrames:
    """The events of one response, numbered as they are made."""

    def __init__(
        self,
        asked: ResponsesRequest,
        response_id: str,
        created: int,
        model: str,
        answer: SimulatedCompletion,
    ) -> None:
        self._asked = asked
        self._answer = answer
        self._number = 0
        self._item_id = f"{'fc' if answer.tool else 'msg'}_{response_id.removeprefix('resp_')}"
        self._head: dict[str, Any] = {
            "id": response_id,
            "object": "response",
            "created_at": created,
            "model": model,
            "instructions": asked.instructions,
            "metadata": asked.metadata,
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": asked.previous_response_id,
            "temperature": asked.temperature,
            "text": asked.text,
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "error": None,
        }

    def build_response(self, tail: dict[str, Any] | None) -> dict[str, Any]:
        """The whole response; `tail` is what it says of its cost, None while it is not over."""
        if tail is None:
            return {
                **self._head,
                "status": "in_progress",
                "incomplete_details": None,
                "output": [],
                "usage": None,
            }
        cut = self._answer.finish_reason == "length"
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": [self._build_item("completed", self._answer.full_text)],
            "usage": build_responses_usage(tail["usage"]),
            "simulated": tail["simulated"],
        }

    def format_opening(self) -> bytes:
        """The events before the first token."""
        opened = self.build_response(None)
        events = [
            self._event("response.created", response=opened),
            self._event("response.in_progress", response=opened),
            self._event(
                "response.output_item.added",
                output_index=0,
                item=self._build_item("in_progress", None),
            ),
        ]
        if self._answer.tool is None:
            events.append(
                self._event("response.content_part.added", **self._where, part=_make_part(""))
            )
        return b"".join(events)

    def format_token(self, k: int) -> bytes:
        """The event of the k-th token; one without text has none."""
        piece = self._answer.pieces[k]
        if not piece:
            return b""
        if self._answer.tool is not None:
            where = {"item_id": self._item_id, "output_index": 0}
            return self._event("response.function_call_arguments.delta", **where, delta=piece)
        return self._event("response.output_text.delta", **self._where, delta=piece, logprobs=[])

    def format_closing(self) -> Iterator[bytes]:
        """The events after the last token, but for the very last."""
        text = self._answer.full_text
        where = {"item_id": self._item_id, "output_index": 0}
        if self._answer.tool is not None:
            name = self._answer.tool.name
            yield self._event(
                "response.function_call_arguments.done", **where, name=name, arguments=text
            )
        else:
            yield self._event("response.output_text.done", **self._where, text=text, logprobs=[])
            yield self._event("response.content_part.done", **self._where, part=_make_part(text))
        item = self._build_item("completed", text)
        yield self._event("response.output_item.done", output_index=0, item=item)

    def format_end(self, tail: dict[str, Any]) -> bytes:
        """The last event."""
        return self._event("response.completed", response=self.build_response(tail))

    @property
    def _where(self) -> dict[str, Any]:
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def _build_item(self, status: str, text: str | None) -> dict[str, Any]:
        tool = self._answer.tool
        if tool is not None:
            return {
                "type": "function_call",
                "id": self._item_id,
                "call_id": tool.id,
                "name": tool.name,
                "arguments": text or "",
                "status": status,
            }
        return {
            "type": "message",
            "id": self._item_id,
            "role": "assistant",
            "status": status,
            "content": [] if text is None else [_make_part(text)],
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), _json(data))


def build_responses_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The same counts as the Responses API has them."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }


def _make_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
