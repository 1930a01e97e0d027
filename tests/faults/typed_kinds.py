"""The same faults for the Responses and the Messages API: their proper answers, made to be spoilt.

As with chat's, the first event opens, the next three carry the text, the last but one says how it
ends, and the last ends it.
"""

import json
from dataclasses import dataclass

from tests.faults.asked import PARTS, Asked, text_of
from tests.integration.typed import message, message_events, response, response_events, typed


class AskedTyped(Asked):
    """A request whose stream's events are named by their type."""

    @staticmethod
    def event(value: dict) -> bytes:
        """Return a server-sent event."""
        return typed(value["type"], **{k: v for k, v in value.items() if k != "type"})


@dataclass(frozen=True)
class AskedResponse(AskedTyped):
    """A request to /v1/responses."""

    @property
    def _request(self) -> dict:
        return {"model": self.model, "request_id": self.id}

    @property
    def events(self) -> list[bytes]:
        """A proper stream's events; its four openers and its closers are one each."""
        words = [self.word, *(part for part in PARTS if part)]
        found = response_events(self._request, words)
        return [b"".join(found[:4]), *found[4:-2], found[-2], found[-1]]

    @property
    def given_up(self) -> bytes:
        """The event of an answer that vLLM gave up."""
        cancelled = response(self._request, self.word, "cancelled")
        return self.event({"type": "response.completed", "response": cancelled})

    @property
    def body(self) -> bytes:
        """A proper unary answer."""
        return json.dumps(response(self._request, text_of(self.word))).encode()

    def chunk(self, delta: dict, finish: str | None = None) -> dict:  # noqa: ARG002 - chat's
        """Return an event's data."""
        return {"type": "response.output_text.delta", "delta": delta.get("content", "")}


@dataclass(frozen=True)
class AskedMessage(AskedTyped):
    """A request to /v1/messages."""

    @property
    def events(self) -> list[bytes]:
        """A proper stream's events; its openers and its closers are one each."""
        words = [self.word, *(part for part in PARTS if part)]
        found = [
            event.replace(b"chatcmpl-1", self.id.encode())
            for event in message_events({"model": self.model}, words)
        ]
        return [b"".join(found[:2]), *found[2:-3], b"".join(found[-3:-1]), found[-1]]

    @property
    def given_up(self) -> bytes:
        """The events of an answer that vLLM gave up."""
        given_up = {"type": "message_delta", "delta": {"stop_reason": None, "stop_sequence": None}}
        return self.event(given_up) + self.event({"type": "message_stop"})

    @property
    def body(self) -> bytes:
        """A proper unary answer."""
        return json.dumps(message({"model": self.model}, text_of(self.word), id=self.id)).encode()

    def chunk(self, delta: dict, finish: str | None = None) -> dict:  # noqa: ARG002 - chat's
        """Return an event's data."""
        text = {"type": "text_delta", "text": delta.get("content", "")}
        return {"type": "content_block_delta", "index": 0, "delta": text}


def read_request(path: str, request: dict, sent_as: str) -> Asked:
    """Return what was asked, by the API whose path it is."""
    stream, model = bool(request.get("stream")), request["model"]
    if path.endswith("/v1/responses"):
        return AskedResponse(request["input"], model, stream, request["request_id"])
    kind = AskedMessage if path.endswith("/v1/messages") else Asked
    return kind(request["messages"][-1]["content"], model, stream, f"chatcmpl-{sent_as}")
