"""Asking once by one of three APIs, each through its own vendor's SDK.

Anthropic's SDK is none of the project's own tools: `python -m tests.faults --api messages` takes it
from the environment of tests/e2e/clients.py.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import openai

APIS = ("chat", "responses", "messages")


class Heard(NamedTuple):
    """An answer as its SDK has it."""

    text: str
    finished: bool
    attempts: int


Ask = Callable[..., Awaitable[Heard]]


@contextlib.asynccontextmanager
async def connect(api: str, url: str) -> AsyncIterator[tuple[Ask, type[Exception]]]:
    """Yield what asks, and the error that its SDK raises for what went wrong."""
    if api == "messages":
        import anthropic

        async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as sdk:

            async def ask_message(model: str, word: str, headers: dict, *, stream: bool) -> Heard:
                return await _ask_message(sdk, model, word, headers, stream=stream)

            yield ask_message, anthropic.APIError
        return
    ask = _ask_chat if api == "chat" else _ask_response
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as sdk:

        async def ask_openai(model: str, word: str, headers: dict, *, stream: bool) -> Heard:
            return await ask(sdk, model, word, headers, stream=stream)

        yield ask_openai, openai.APIError


async def _ask_chat(
    sdk: openai.AsyncOpenAI, model: str, word: str, headers: dict, *, stream: bool
) -> Heard:
    raw = await sdk.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": word}],
        stream=stream,
        extra_headers=headers,
    )
    answer: Any = raw.parse()
    if not stream:
        return Heard(answer.choices[0].message.content or "", True, _attempts(raw))
    text, finished = "", False
    async for chunk in answer:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finished = finished or choice.finish_reason is not None
    return Heard(text, finished, _attempts(raw))


async def _ask_response(
    sdk: openai.AsyncOpenAI, model: str, word: str, headers: dict, *, stream: bool
) -> Heard:
    raw = await sdk.responses.with_raw_response.create(
        model=model, input=word, stream=stream, extra_headers=headers
    )
    answer: Any = raw.parse()
    if not stream:
        return Heard(answer.output_text, answer.status == "completed", _attempts(raw))
    text, finished = "", False
    async for event in answer:
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            text, finished = event.response.output_text, True
    return Heard(text, finished, _attempts(raw))


async def _ask_message(sdk: Any, model: str, word: str, headers: dict, *, stream: bool) -> Heard:
    raw = await sdk.messages.with_raw_response.create(
        model=model,
        max_tokens=100,
        messages=[{"role": "user", "content": word}],
        stream=stream,
        extra_headers=headers,
    )
    answer = await raw.parse()
    if not stream:
        return Heard(answer.content[0].text, answer.stop_reason is not None, _attempts(raw))
    text, finished = "", False
    async for event in answer:
        if event.type == "content_block_delta":
            text += event.delta.text
        elif event.type == "message_delta":
            finished = event.delta.stop_reason is not None
    return Heard(text, finished, _attempts(raw))


def _attempts(raw: Any) -> int:
    return int(raw.headers.get("x-joulegate-attempts", "0"))


def import_sdk(api: str) -> None:
    """Import an API's SDK before anything serves: it takes seconds, and probes wait for no import.

    Anthropic's comes after everything of the project's own.
    """
    if api != "messages":
        return
    from tests.e2e.clients import clients_python

    (found,) = clients_python().parents[1].glob("lib/python*/site-packages")
    sys.path.append(str(found))
    import anthropic  # noqa: F401 - kept by the interpreter
