"""One cell of the matrix: requests through the SDK against one fault, and what became of each."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.faults.asked import text_of
from tests.faults.clients import Ask
from tests.faults.server import FaultServer

MAX_ATTEMPTS = 3
ATTEMPT_SECONDS = 1.0
"""The first-token, unary, stall and connect deadlines of the gateway under test."""
STREAM_SECONDS = 2.0
"""How long a whole stream may go on."""
DEADLINE_SECONDS = (MAX_ATTEMPTS + 1) * ATTEMPT_SECONDS
"""Each attempt's deadline, and a stall after the first content."""
_words = itertools.count()
Client = tuple[Ask, type[Exception]]


class Fate(StrEnum):
    """What became of a request; all but the first two are faults of the gateway's."""

    ANSWERED = "answered"
    REFUSED = "error"
    HUNG = "hung"
    TRUNCATED = "silently truncated"
    ANOTHERS = "another's answer"
    MISSHAPEN = "misshapen error"
    TOO_MANY = "attempts > max"


@dataclass
class CellResult:
    """The fates of a cell's requests, with an example of each that is not well."""

    fates: Counter[Fate] = field(default_factory=Counter)
    examples: dict[Fate, str] = field(default_factory=dict)
    slowest_seconds: float = 0.0

    def add(self, fate: Fate, said: str, seconds: float) -> None:
        """Enter one request."""
        self.fates[fate] += 1
        self.examples.setdefault(fate, said)
        self.slowest_seconds = max(self.slowest_seconds, seconds)


def model_name(kind: str, scope: str) -> str:
    """Return what a cell's model is called."""
    allowed = "".join(c if c.isalnum() else "-" for c in kind)
    return f"{allowed.strip('-')}.{scope}"


def limit_together(kind: str, wanted: int) -> int:
    """Ask few at once for what keeps this very process writing: it would time itself."""
    if "20 MB" in kind:
        return min(wanted, 2)
    return min(wanted, 10) if kind == "endless body" else wanted


async def ask(
    client: Client, server: FaultServer, model: str, *, stream: bool, patience: float
) -> tuple[Fate, str, float]:
    """Ask once; return the fate, what was said, and how long it took."""
    word = f"w{next(_words)}"
    request_id = f"cell-{word}"
    began = time.perf_counter()
    try:
        async with asyncio.timeout(patience):
            fate, said = await _ask(client, model, word, request_id, stream=stream)
    except TimeoutError:
        fate, said = Fate.HUNG, f"nothing final within {patience:g} s"
    if server.sent[request_id] > MAX_ATTEMPTS + 1:  # one silent resend is none
        fate, said = Fate.TOO_MANY, f"sent {server.sent[request_id]} times"
    return fate, said, time.perf_counter() - began


async def _ask(
    client: Client, model: str, word: str, request_id: str, *, stream: bool
) -> tuple[Fate, str]:
    asks, api_error = client
    try:
        heard = await asks(model, word, {"x-request-id": request_id}, stream=stream)
    except api_error as error:
        return _fate_of_error(error)
    except Exception as error:  # noqa: BLE001 - whatever else the SDK trips over is ours
        return Fate.MISSHAPEN, f"{type(error).__name__}: {error}"
    if heard.attempts > MAX_ATTEMPTS:
        return Fate.TOO_MANY, f"{heard.attempts} attempts"
    return _fate_of_text(heard.text, word, finished=heard.finished)


def _fate_of_text(text: str, word: str, *, finished: bool) -> tuple[Fate, str]:
    """Tell a whole answer from a part of it, and from somebody else's."""
    if text == text_of(word) and finished:
        return Fate.ANSWERED, ""
    if text_of(word).startswith(text):
        return Fate.TRUNCATED, f"{text!r}, finish_reason {'seen' if finished else 'missing'}"
    if text.startswith(word) and "STRAY" not in text:
        return Fate.TRUNCATED, f"{text[:80]!r}"
    return Fate.ANOTHERS, f"{text[:80]!r} for {word}"


def _fate_of_error(error: Any) -> tuple[Fate, str]:
    """Tell an error in the API's shape from any other."""
    response = getattr(error, "response", None)
    attempts = 0 if response is None else int(response.headers.get("x-joulegate-attempts", "0"))
    if attempts > MAX_ATTEMPTS:
        return Fate.TOO_MANY, f"{attempts} attempts"
    body = error.body
    said = f"{type(error).__name__}: {error}"
    if isinstance(body, dict) and body.get("type") == "error" and "request_id" in body:
        body = {"param": None, "code": None, **body["error"]}  # Anthropic's
    if isinstance(body, dict) and {"message", "type", "param", "code"} <= body.keys():
        well = isinstance(body["message"], str) and isinstance(body["type"], str)
        return (Fate.REFUSED if well else Fate.MISSHAPEN), said
    return Fate.MISSHAPEN, said


async def run_cell(
    client: Client,
    server: FaultServer,
    kind: str,
    scope: str,
    *,
    stream: bool,
    requests: int,
    together: int,
    patience: float = DEADLINE_SECONDS + 1.0,
) -> CellResult:
    """Ask `requests` times, `together` at once."""
    result = CellResult()
    left = iter(range(requests))

    async def ask_on() -> None:
        for _ in left:
            result.add(
                *await ask(
                    client, server, model_name(kind, scope), stream=stream, patience=patience
                )
            )

    await asyncio.gather(*(ask_on() for _ in range(together)))
    return result
