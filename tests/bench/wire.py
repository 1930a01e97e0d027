"""The bytes that go over the wire: requests as the OpenAI SDK sends them, answers as vLLM does."""

import json
import re

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CONTENT = b'"content":" '
"""Stands once in each event that carries a token."""
END = b"0\r\n\r\n"

_PROMPT = "Explain reinforcement learning in two sentences for a newcomer."


def request(port: int, *, stream_tokens: int | None = None) -> bytes:
    """Return a small chat request for `auto`, head and body, as openai-python writes it."""
    body: dict[str, object] = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": _PROMPT},
        ],
        "model": "auto",
        "max_tokens": stream_tokens or 256,
    }
    if stream_tokens:
        body["stream"] = True
    encoded = json.dumps(body, separators=(",", ":")).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "Accept-Encoding: gzip, deflate\r\n"
        "Connection: keep-alive\r\n"
        "Accept: application/json\r\n"
        "Content-Type: application/json\r\n"
        "User-Agent: AsyncOpenAI/Python 3.51.0\r\n"
        "X-Stainless-Lang: python\r\n"
        "X-Stainless-Package-Version: 3.51.0\r\n"
        "X-Stainless-OS: Linux\r\n"
        "X-Stainless-Arch: x64\r\n"
        "X-Stainless-Runtime: CPython\r\n"
        "X-Stainless-Runtime-Version: 3.11.7\r\n"
        "Authorization: Bearer sk-0123456789abcdef\r\n"
        "X-Stainless-Async: async:asyncio\r\n"
        "x-stainless-retry-count: 0\r\n"
        "x-stainless-read-timeout: 600\r\n"
        f"Content-Length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


def _usage(completion: int) -> dict[str, object]:
    return {
        "prompt_tokens": 27,
        "total_tokens": 27 + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
    }


def unary(served_name: str) -> bytes:
    """Return a whole chat completion, head and body."""
    answer = {
        "id": "chatcmpl-6b1f0c8a4f5e4d0c9a7b3e2d1c0f9e8d",
        "object": "chat.completion",
        "created": 1795150402,
        "model": served_name,
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "It is learning by trial and error. An agent acts, sees what it "
                    "earns, and shifts towards what earned more.",
                    "refusal": None,
                    "annotations": None,
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": None,
            }
        ],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": _usage(28),
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }
    body = json.dumps(answer, separators=(",", ":")).encode()
    return whole("application/json", body)


def whole(content_type: str, body: bytes) -> bytes:
    """Return an answer with a body of known length."""
    head = (
        "HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 06:00:00 GMT\r\nserver: uvicorn\r\n"
        f"content-length: {len(body)}\r\ncontent-type: {content_type}\r\n\r\n"
    )
    return head.encode() + body


class Streamed:
    """The pieces of one streamed completion, each in HTTP's chunked coding; `word` is a token's."""

    def __init__(self, served_name: str, word: str = " word") -> None:
        self._name = served_name
        self.head = (
            b"HTTP/1.1 200 OK\r\ndate: Fri, 20 Nov 2026 06:00:00 GMT\r\nserver: uvicorn\r\n"
            b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        ) + self._event({"role": "assistant", "content": ""}, None)
        self.token = self._event({"content": word}, None)
        self._tails: dict[int, bytes] = {}

    def tail(self, tokens: int) -> bytes:
        """Return the last token, the usage, [DONE] and the end."""
        if tokens not in self._tails:
            usage = self._chunk([], usage=_usage(tokens))
            last = self._event({"content": " word"}, "stop")
            self._tails[tokens] = last + _framed(usage) + _framed(b"data: [DONE]\n\n") + END
        return self._tails[tokens]

    def _event(self, delta: dict[str, str], finish: str | None) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
            "token_ids": None,
        }
        return _framed(self._chunk([choice]))

    def _chunk(self, choices: list[object], **more: object) -> bytes:
        event = {
            "id": "chatcmpl-6b1f0c8a4f5e4d0c9a7b3e2d1c0f9e8d",
            "object": "chat.completion.chunk",
            "created": 1795150402,
            "model": self._name,
            "choices": choices,
            **more,
        }
        return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
