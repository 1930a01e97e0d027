"""One request to one backend, as its meter is told of it.

Written to by whoever serves the request, read four times a second by the link to the meter; what is
new since it was last told becomes events.
"""

import time
from typing import Any, Protocol

from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.protocol import Begin, End, Event, Method, Progress

_CHUNKS_TO_LEARN = 20
_FRAME_CHUNKS = 3  # the role, the usage and the end: chunks without a token of their own
_LEARNING_RATE = 0.1
_TOKENS_PER_CHUNK = (0.1, 64.0)  # beyond that it is nonsense, which must not last
_MOST_TOKENS = 1 << 31
_MOST_QUEUE_SECONDS = 1e6
_MOST_PREFILL_JOULES = 1e9
BEGUN, ANSWERING, OVER, FORSAKEN = 1, 2, 3, 4
"""How much of a request a meter has been told; FORSAKEN: the meter has given it up."""


class Counting(Protocol):
    """A stream that counts the events that have passed."""

    chunks: int


class Heard(Protocol):
    """Knows when the last of them came, in monotonic seconds."""

    last: float


class Link(Protocol):
    """What a backend's place needs of the connection to its meter."""

    def begin(
        self, place: "BackendMeter", prompt_tokens: int, prefill_microjoules: int
    ) -> "Metered":
        """Note a request."""

    def over(self, metered: "Metered") -> None:
        """Note that it has ended."""


class Metered:
    """One request to one backend; times are monotonic seconds, `microjoules` once observed."""

    __slots__ = (
        "began", "cached_tokens", "decode_cost", "ended", "first", "heard", "id", "method",
        "microjoules", "owner", "place", "prefill_microjoules", "prompt_tokens", "queue_seconds",
        "stream", "tokens", "told", "told_at", "told_tokens", "true_prompt_tokens", "unseen",
    )  # fmt: skip

    def __init__(
        self, number: int, place: "BackendMeter", prompt_tokens: int, prefill_microjoules: int
    ) -> None:
        self.id = number
        self.place = place
        self.prompt_tokens = prompt_tokens
        self.prefill_microjoules = prefill_microjoules
        self.decode_cost: DecodeCost | None = None
        self.began = time.monotonic()
        self.first = 0.0
        self.ended = 0.0
        self.tokens = 0
        self.true_prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.queue_seconds: float | None = None
        self.stream: Counting | None = None
        self.heard: Heard | None = None
        self.owner: Any = None
        self.microjoules = 0
        self.method: Method = "estimated"
        self.unseen = False
        """Whether its tokens are a guess."""
        self.told = 0
        self.told_at = 0.0
        self.told_tokens = 0

    def streams(self, stream: Counting, heard: Heard) -> None:
        """Note the first content, and what will know of the rest."""
        self.first = time.monotonic()
        self.stream = stream
        self.heard = heard

    def end(
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
        self.ended = time.monotonic()
        tokens, prompt_tokens, cached_tokens = map(_count, (tokens, prompt_tokens, cached_tokens))
        if tokens is None:
            tokens = self._streamed()
        elif self.stream is not None:
            self.place.learn(tokens, self.stream.chunks)
        self.tokens = max(tokens, self.told_tokens)
        self.true_prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        if cached_tokens:
            self.place.caches = True
        if not self.first and tokens and first_share is not None:
            self.first = self.began + (self.ended - self.began) * min(max(first_share, 0.0), 1.0)
        self.stream = self.heard = None
        self.place.link.over(self)

    def leave(self, guessed_tokens: int) -> None:
        """Note that it was given up before anything came; so many tokens it may have had."""
        self.unseen = True
        self.end(tokens=guessed_tokens)

    def refused(self) -> None:
        """Note that the backend did nothing for it."""
        self.end(tokens=0, prompt_tokens=0)

    @property
    def stage(self) -> int:
        """How much there is to tell."""
        if self.ended:
            return OVER
        return ANSWERING if self.first else BEGUN

    def _streamed(self) -> int:
        """Return the tokens that have passed so far, as well as chunks can tell."""
        if self.stream is None:
            return 0
        return max(1, round((self.stream.chunks - 1) * self.place.tokens_per_chunk))

    def news(self, now: float) -> list[Event]:
        """Return what the meter has not been told yet."""
        place = self.place
        found: list[Event] = []
        if self.told == FORSAKEN:
            return found
        if self.told < BEGUN:
            found.append(
                Begin(
                    self.id, _age(now, self.began), place.index, self.prompt_tokens,
                    self.prefill_microjoules, place.caches, *(self.decode_cost or ()),
                )
            )  # fmt: skip
        if self.told < ANSWERING and self.first:
            found.append(Progress(self.id, _age(now, self.first), 1))
        if self.ended:
            queue = self.queue_seconds
            if queue is not None and not 0.0 <= queue <= _MOST_QUEUE_SECONDS:
                queue = None
            found.append(
                End(
                    self.id, _age(now, self.ended), self.tokens, self.true_prompt_tokens,
                    self.cached_tokens, None if queue is None else round(queue * 1e6), self.unseen,
                )
            )  # fmt: skip
        elif self.heard is not None and (tokens := self._streamed()) > max(self.told_tokens, 1):
            self.tokens = tokens
            found.append(Progress(self.id, _age(now, self.heard.last), tokens))
        return found


def _count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens < _MOST_TOKENS else None


def _age(now: float, then: float) -> int:
    return max(0, round((now - then) * 1e6))


class BackendMeter:
    """One backend's place at its meter, and what was learnt of how it answers."""

    __slots__ = ("caches", "index", "known", "label", "ledger", "link", "tokens_per_chunk")

    def __init__(self, link: Link, index: int, label: str, ledger: str) -> None:
        self.link = link
        self.index = index
        self.label = label
        self.ledger = ledger
        self.caches = False
        """Whether it has been seen to skip a part of a prompt; known only at an answer's end."""
        self.tokens_per_chunk = 1.0
        self.known = True

    def begin(
        self, prompt_tokens: int, prefill_joules: float, decode_cost: DecodeCost | None = None
    ) -> Metered:
        """Note that a request is being sent; end it exactly once."""
        joules = min(max(0.0, prefill_joules), _MOST_PREFILL_JOULES)
        metered = self.link.begin(self, prompt_tokens, round(joules * 1e6))
        metered.decode_cost = decode_cost
        return metered

    def learn(self, tokens: int, chunks: int) -> None:
        """Learn from a whole answer how many tokens a chunk of its stream holds."""
        chunks -= _FRAME_CHUNKS
        if chunks >= _CHUNKS_TO_LEARN:
            least, most = _TOKENS_PER_CHUNK
            seen = min(max(tokens / chunks, least), most)
            self.tokens_per_chunk += _LEARNING_RATE * (seen - self.tokens_per_chunk)
