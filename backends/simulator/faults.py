"""The ways in which a simulated server can be told to misbehave."""

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

GENERATION_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")

FAULT_KINDS: dict[str, str] = {
    "refuse": "the listening socket is closed, kept-alive connections are reset (in-process, or "
    "with for_seconds, since nothing can reach it over HTTP meanwhile)",
    "reset_on_accept": "the connection is reset before any byte of an answer",
    "status": "answers with `status` (and retry_after, body, html) instead of serving",
    "garbage": "answers with bytes that are not HTTP",
    "html_200": "answers 200 with a page of HTML",
    "json_200_error": "answers 200 with a JSON body that holds an error",
    "truncated_json": "unary: content-length is larger than the body, then the connection closes",
    "cut_json": "unary: a complete HTTP body that is only the first half of its JSON",
    "silent": "accepts the request and never answers",
    "silent_after_headers": "stream: 200 and the headers, then nothing",
    "slow_headers": "waits delay_s seconds before it does anything",
    "die_before_content": "stream: headers and the role-only chunk, then a reset",
    "die_after": "stream: `chunks` chunks of content, then a reset",
    "stall_after": "stream: `chunks` chunks of content, then silence on an open connection",
    "no_done": "stream: ends cleanly without `data: [DONE]`",
    "error_frame_after": "stream: `chunks` chunks, then an error event and [DONE], as vLLM does",
    "split_events": "stream: bytes arrive cut at arbitrary places, several events in one write",
    "unhealthy": "/health answers 503",
    "redirect": "answers 307 to `location`",
}
_STREAMED = frozenset(
    {
        "silent_after_headers", "die_before_content", "die_after", "stall_after", "no_done",
        "error_frame_after", "split_events",
    }
)  # fmt: skip
_UNARY = frozenset({"truncated_json", "cut_json"})


class ActiveFault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault that is set; fields that its kind does not use are ignored."""

    count: int | None = None
    """How many requests it still affects; then it heals. None: until it is cleared."""
    probability: float = 1.0
    for_seconds: float | None = None
    """It heals after so many wall seconds."""
    path: str | None = None
    """The path it is for; None: chat, completions and embeddings."""
    status: int = 500
    retry_after: str | None = None
    body: Any = None
    """What `status` answers with: JSON; None is vLLM's error object."""
    html: bool = False
    """`status` answers with HTML, as a proxy in between would."""
    delay_s: float = 1.0
    chunks: int = 1
    location: str = "http://127.0.0.1:9/elsewhere"


class FaultInjector:
    """The faults that are set on one server; may be changed at any time, from its event loop."""

    def __init__(self, seed: int = 0) -> None:
        self.active: dict[str, ActiveFault] = {}
        self.served: dict[str, int] = dict.fromkeys(FAULT_KINDS, 0)
        """How many requests each kind has affected."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change; the server opens and closes its socket there."""
        self.rng = Random(seed)  # noqa: S311 - to be repeatable
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set_fault(self, kind: str, **fields: Any) -> ActiveFault:
        """Set one fault, as in `set("status", status=503, count=2)`; ValueError if unknown."""
        fault = _parse_fault(kind, fields)
        self.clear_faults(kind)
        self.active[kind] = fault
        if fault.for_seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[kind] = loop.call_later(fault.for_seconds, self.clear_faults, kind)
        self.on_change()
        return fault

    def replace_faults(self, faults: Mapping[str, Mapping[str, Any]]) -> None:
        """Set these faults and no others; nothing changes if one of them is wrong."""
        for kind, fields in faults.items():
            _parse_fault(kind, fields)
        self.clear_faults()
        for kind, fields in faults.items():
            self.set_fault(kind, **fields)

    def clear_faults(self, kind: str | None = None) -> None:
        """Heal one fault, or all."""
        for name in [kind] if kind is not None else list(self.active):
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
            self.active.pop(name, None)
        self.on_change()

    @property
    def refuses_connections(self) -> bool:
        """Whether connections are to be refused."""
        return "refuse" in self.active

    def take_faults(self, path: str, *, stream: bool) -> list[tuple[str, ActiveFault]]:
        """The faults that strike this request, in the order they were set; counts go down."""
        if not self.active:
            return []
        struck = []
        for kind, fault in list(self.active.items()):
            if kind in {"refuse", "unhealthy"} or kind in (_UNARY if stream else _STREAMED):
                continue
            if path not in ((fault.path,) if fault.path else GENERATION_PATHS):
                continue
            if fault.probability < 1.0 and self.rng.random() >= fault.probability:
                continue
            self.count_use(kind)
            struck.append((kind, fault))
        return struck

    def count_use(self, kind: str) -> None:
        """Count one request that a fault affected."""
        fault = self.active[kind]
        self.served[kind] += 1
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                self.clear_faults(kind)


def _parse_fault(kind: str, fields: Mapping[str, Any]) -> ActiveFault:
    if kind not in FAULT_KINDS:
        raise ValueError(f"unknown fault {kind!r}; there are {', '.join(FAULT_KINDS)}")
    try:
        fault = msgspec.convert(fields, ActiveFault)
    except msgspec.ValidationError as error:
        raise ValueError(f"fault {kind}: {error}") from None
    if fault.count is not None and fault.count < 1:
        raise ValueError(f"fault {kind}: count is {fault.count}, at least 1 is needed")
    return fault
