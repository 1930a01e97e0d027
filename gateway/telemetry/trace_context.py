"""W3C Trace Context: where a request stands in a trace, and what its backend is told of that.

Rules: a `traceparent` is taken whole or not at all, and what is passed on is made of checked hex
digits only; a bad `tracestate` costs nothing but itself; a caller's decision whether to record is
kept; ids exist before a request is sent. Nothing of OpenTelemetry is needed for any of it.
"""

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_PARENT: Final = b"traceparent"
_STATE: Final = b"tracestate"
TRACE_HEADERS: Final = frozenset((_PARENT, _STATE))
"""What `received` reads, in lower case."""

_SAMPLED: Final = 0x01
_KNOWN_FLAGS: Final = 0x03
_FIRST_VERSION: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LATER_VERSION: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-[\x21-\x7e]{0,200})?"
)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_STATE_BYTES: Final = 512
_STATE_MEMBERS: Final = 32
_MEMBER: Final = re.compile(
    rb"([a-z0-9][a-z0-9_*/@-]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class AttemptTiming(NamedTuple):
    """When a backend was asked (Unix time), and how long until it answered or failed."""

    at: float
    seconds: float


@dataclass(slots=True)
class TraceContext:
    """One request's place in a trace; ids are lower-case hex.

    `header` is the `traceparent` for its backends. `span_id` is empty where no span is recorded.
    `states` are the client's `tracestate` headers as they came.
    """

    header: str
    trace_id: str
    flags: int
    parent_id: str = ""
    states: tuple[bytes, ...] = ()
    span_id: str = ""
    asked: list[AttemptTiming] = field(default_factory=list)

    @property
    def trace_state(self) -> str:
        """The members of every `tracestate` as one, or nothing where one of them is bad."""
        members = [
            member for part in b",".join(self.states).split(b",") if (member := part.strip(b" \t"))
        ]
        keys = {found[1] for member in members if (found := _MEMBER.fullmatch(member))}
        state = b",".join(members)
        good = len(keys) == len(members) <= _STATE_MEMBERS and len(state) <= _STATE_BYTES
        return state.decode() if good else ""


def parse_trace_context(headers: list[tuple[bytes, bytes]]) -> TraceContext | None:
    """Read what a client sent under HEADERS; None where it is no context."""
    parents = [value for name, value in headers if name == _PARENT]
    if len(parents) != 1:
        return None
    parent = parents[0].strip(b" \t")
    found = _FIRST_VERSION.fullmatch(parent)
    if found is None and not parent.startswith(b"00"):
        found = _LATER_VERSION.fullmatch(parent)
    if found is None:
        return None
    trace_id, span_id, flags = (part.decode() for part in found.groups())
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    # Of a later version only what this one knows is passed on.
    header = f"00-{trace_id}-{span_id}-{flags}"
    states = tuple(value for name, value in headers if name == _STATE)
    return TraceContext(header, trace_id, int(flags, 16) & _KNOWN_FLAGS, span_id, states)


class TraceSampler:
    """Gives requests their ids and decides which are recorded: the caller's word, else a ratio."""

    def __init__(self, ratio: float) -> None:
        # By the last 64 bits of the id, as OpenTelemetry's samplers do: all decide alike.
        self._bound = round(ratio * 2**64)

    def begin_span(self, trace: TraceContext | None) -> TraceContext:
        """Return the trace with a span of the request's own, unless its caller records nothing."""
        if trace is None:
            fresh = next(_fresh_ids)
            trace_id, span_id = fresh[:32], fresh[32:]
            if int(trace_id[16:], 16) >= self._bound:
                # Told so, or vLLM would begin a trace without its beginning.
                return TraceContext(f"00-{trace_id}-{span_id}-00", trace_id, 0)
            header = f"00-{trace_id}-{span_id}-01"
            return TraceContext(header, trace_id, _SAMPLED, span_id=span_id)
        if trace.flags & _SAMPLED and not trace.span_id:
            trace.span_id = next(_fresh_ids)[32:]
            trace.header = f"00-{trace.trace_id}-{trace.span_id}-{trace.flags:02x}"
        return trace

    def record_attempt(self, trace: TraceContext | None, began: float) -> None:
        """Note that an attempt is over that began at `began`, in monotonic seconds."""
        if trace is not None and trace.span_id:
            seconds = time.monotonic() - began
            trace.asked.append(AttemptTiming(time.time() - seconds, seconds))


def _make_ids() -> Iterator[str]:
    """Make a trace's and a span's id in one, for ever, drawing the randomness of many at once."""
    while True:
        drawn = secrets.token_hex(24 * 256)
        for start in range(0, len(drawn), 48):
            yield drawn[start : start + 48]


_fresh_ids = _make_ids()
