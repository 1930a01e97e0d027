"""One attempt, as it is reported to the backend's meter.

Written to by whoever serves the request, read four times a second by the link to the meter; what is
new since the last acknowledged batch becomes events.
"""

import time
from collections.abc import Callable
from typing import Protocol

from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.method import ESTIMATED, MeteringMethod
from backends.meter.protocol import (
    HostEnergy,
    MeterEvent,
    RequestBegin,
    RequestEnd,
    RequestProgress,
)

_CHUNKS_TO_LEARN = 20
_FRAME_CHUNKS = 3  # the role, the usage and the end: chunks without a token of their own
_LEARNING_RATE = 0.1
_TOKENS_PER_CHUNK = (0.1, 64.0)  # beyond that it is nonsense, which must not last
_MAX_TOKENS = 1 << 31
_MAX_QUEUE_SECONDS = 1e6
_MAX_PREFILL_JOULES = 1e9
BEGUN, ANSWERING, ENDED, ABANDONED = 1, 2, 3, 4
"""How much of a request is acknowledged by the meter; ABANDONED: the meter has expired it."""


EnergyCallback = Callable[[int, MeteringMethod], None]
"""Takes the microjoules of a request and how they were measured, once.

`estimated` with 0 microjoules: the meter knows no better than the caller's own estimate.
"""


class ChunkCounter(Protocol):
    """A stream that counts the events that have passed."""

    chunks: int


class LastChunkClock(Protocol):
    """Knows when the last of them came, in monotonic seconds."""

    last: float


class MeterConnection(Protocol):
    """What a backend's place needs of the connection to its meter."""

    host: HostEnergy | None
    """What the server has drawn for this gateway without accelerators; None: nothing counts it."""

    def begin_request(
        self, place: "BackendMeter", prompt_tokens: int, prefill_microjoules: int
    ) -> "MeteredAttempt":
        """Note a request."""

    def end_request(self, metered: "MeteredAttempt") -> None:
        """Note that it has ended."""


class MeteredAttempt:
    """One request to one backend; times are monotonic seconds, `microjoules` once observed."""

    __slots__ = (
        "backend_meter",
        "began_at",
        "cached_tokens",
        "decode_cost",
        "ended_at",
        "first_content_at",
        "id",
        "last_chunk_clock",
        "method",
        "microjoules",
        "on_energy",
        "prefill_microjoules",
        "prompt_tokens",
        "queue_seconds",
        "reported_at",
        "reported_stage",
        "reported_tokens",
        "stream",
        "tokens",
        "true_prompt_tokens",
        "unseen",
    )  # fmt: skip

    def __init__(
        self, number: int, place: "BackendMeter", prompt_tokens: int, prefill_microjoules: int
    ) -> None:
        self.id = number
        self.backend_meter = place
        self.prompt_tokens = prompt_tokens
        self.prefill_microjoules = prefill_microjoules
        self.decode_cost: DecodeCost | None = None
        self.began_at = time.monotonic()
        self.first_content_at = 0.0
        self.ended_at = 0.0
        self.tokens = 0
        self.true_prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.queue_seconds: float | None = None
        self.stream: ChunkCounter | None = None
        self.last_chunk_clock: LastChunkClock | None = None
        self.on_energy: EnergyCallback | None = None
        """Waits for the joules; None: nobody does."""
        self.microjoules = 0
        self.method: MeteringMethod = ESTIMATED
        self.unseen = False
        """Whether its tokens are a guess."""
        self.reported_stage = 0
        self.reported_at = 0.0
        self.reported_tokens = 0

    def record_first_content(self, stream: ChunkCounter, heard: LastChunkClock) -> None:
        """Note the first content, and what counts and times the rest."""
        self.first_content_at = time.monotonic()
        self.stream = stream
        self.last_chunk_clock = heard

    def end_attempt(
        self,
        *,
        tokens: int | None = None,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        first_share: float | None = None,
    ) -> None:
        """Note that it is over.

        `tokens` None: the stream's own count. `first_share` is the part of a whole answer's time
        that went by before its first token, where nobody saw it come. Counts that cannot be are
        ignored: a backend's nonsense must not cost others their place in the batch.
        """
        self.ended_at = time.monotonic()
        tokens, prompt_tokens, cached_tokens = map(
            _drop_impossible_count, (tokens, prompt_tokens, cached_tokens)
        )
        if tokens is None:
            tokens = self._count_streamed_tokens()
        elif self.stream is not None:
            self.backend_meter.learn_chunk_size(tokens, self.stream.chunks)
        self.tokens = max(tokens, self.reported_tokens)
        self.true_prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        if cached_tokens:
            self.backend_meter.caches_prompts = True
        if not self.first_content_at and tokens and first_share is not None:
            self.first_content_at = self.began_at + (self.ended_at - self.began_at) * min(
                max(first_share, 0.0), 1.0
            )
        self.stream = self.last_chunk_clock = None
        self.backend_meter.link.end_request(self)

    def leave(self, guessed_tokens: int) -> None:
        """Note that it was given up before anything came; so many tokens it may have had."""
        self.unseen = True
        self.end_attempt(tokens=guessed_tokens)

    def record_refusal(self) -> None:
        """Note that the backend did nothing for it."""
        self.end_attempt(tokens=0, prompt_tokens=0)

    @property
    def progress_stage(self) -> int:
        """The stage it has reached: BEGUN, ANSWERING or ENDED."""
        if self.ended_at:
            return ENDED
        return ANSWERING if self.first_content_at else BEGUN

    def _count_streamed_tokens(self) -> int:
        """Return the tokens that have passed so far, as well as chunks can tell."""
        if self.stream is None:
            return 0
        return max(1, round((self.stream.chunks - 1) * self.backend_meter.tokens_per_chunk))

    def collect_events(self, now: float) -> list[MeterEvent]:
        """Return the events that the meter has not acknowledged yet."""
        place = self.backend_meter
        found: list[MeterEvent] = []
        if self.reported_stage == ABANDONED:
            return found
        if self.reported_stage < BEGUN:
            found.append(
                RequestBegin(
                    self.id,
                    _compute_age_us(now, self.began_at),
                    place.index,
                    self.prompt_tokens,
                    self.prefill_microjoules,
                    place.caches_prompts,
                    *(self.decode_cost or ()),
                )
            )
        if self.reported_stage < ANSWERING and self.first_content_at:
            found.append(RequestProgress(self.id, _compute_age_us(now, self.first_content_at), 1))
        if self.ended_at:
            queue = self.queue_seconds
            if queue is not None and not 0.0 <= queue <= _MAX_QUEUE_SECONDS:
                queue = None
            found.append(
                RequestEnd(
                    self.id,
                    _compute_age_us(now, self.ended_at),
                    self.tokens,
                    self.true_prompt_tokens,
                    self.cached_tokens,
                    None if queue is None else round(queue * 1e6),
                    self.unseen,
                )
            )
        elif self.last_chunk_clock is not None and (tokens := self._count_streamed_tokens()) > max(
            self.reported_tokens, 1
        ):
            self.tokens = tokens
            found.append(
                RequestProgress(self.id, _compute_age_us(now, self.last_chunk_clock.last), tokens)
            )
        return found


def _drop_impossible_count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens < _MAX_TOKENS else None


def _compute_age_us(now: float, then: float) -> int:
    return max(0, round((now - then) * 1e6))


class BackendMeter:
    """One backend's place at its meter, and what was learnt of how it answers."""

    __slots__ = (
        "caches_prompts",
        "has_ledger",
        "index",
        "label",
        "ledger",
        "link",
        "tokens_per_chunk",
    )

    def __init__(self, link: MeterConnection, index: int, label: str, ledger: str) -> None:
        self.link = link
        self.index = index
        self.label = label
        self.ledger = ledger
        self.caches_prompts = False
        """Whether it has been seen to skip a part of a prompt; known only at an answer's end."""
        self.tokens_per_chunk = 1.0
        self.has_ledger = True

    def begin_request(
        self, prompt_tokens: int, prefill_joules: float, decode_cost: DecodeCost | None = None
    ) -> MeteredAttempt:
        """Note that a request is being sent; end it exactly once."""
        joules = min(max(0.0, prefill_joules), _MAX_PREFILL_JOULES)
        metered = self.link.begin_request(self, prompt_tokens, round(joules * 1e6))
        metered.decode_cost = decode_cost
        return metered

    def learn_chunk_size(self, tokens: int, chunks: int) -> None:
        """Learn from a whole answer how many tokens a chunk of its stream holds."""
        chunks -= _FRAME_CHUNKS
        if chunks >= _CHUNKS_TO_LEARN:
            least, most = _TOKENS_PER_CHUNK
            seen = min(max(tokens / chunks, least), most)
            self.tokens_per_chunk += _LEARNING_RATE * (seen - self.tokens_per_chunk)
