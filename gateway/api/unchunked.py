"""Answers to HTTP/1.0 clients: not chunked, for they cannot read that; the close is the end."""

from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send


def answer_unchunked(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that uvicorn sends a body without a length as it is."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn gives a method of its cycle.
        cycle: Any = send.__self__  # type: ignore[attr-defined]
        framed = False

        async def send_plain(message: Message) -> None:
            nonlocal framed
            if message["type"] == "http.response.start":
                framed = any(name.lower() == b"content-length" for name, _ in message["headers"])
                if not framed:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and not framed:
                # uvicorn counts down a length that is not there.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return answer
