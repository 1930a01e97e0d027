"""One request as the ledger sees it: its prefill window and how its tokens grew.

PURE: no clock, no I/O. Times are integer microseconds of the meter's clock.

    progress, end             begin (or none before)       first progress
   -------------> +--------+ -------------> +---------+ -----------------> +--------+
                  | ORPHAN |                | PREFILL |                    | DECODE |
                  +--------+                +---------+                    +--------+
                      | 10 s, no begin           | end; or its gateway is      |
                      v                          | gone, or nothing came for   | likewise
                   dropped                       v too long: incomplete        |
                                             +-------+                         |
                                             | ENDED | <-----------------------+
                                             +-------+
                                                 | the horizon reaches its end
                                                 v
                                            +---------+
                                            | SETTLED |   later events are counted and dropped
                                            +---------+

Rules:
- Events are only noted as they come; `apply_events` applies what was noted since, sorted, so that
  the order of a batch cannot matter. Of several begins or ends in one batch the smallest counts.
- Tokens grow along straight lines between events: an event's increase is spread evenly over the gap
  before it, the first one's since the beginning. A count below an earlier one is ignored.
- A request and its prefill last at least a microsecond, so that there is something to spread over.
- What reaches back behind the settled horizon stays unseen, and makes the request incomplete.
- Points behind the horizon are forgotten, and every second one beyond `MAX_POINTS`.
"""

from bisect import bisect_right

from backends.meter.ledger.apportion import PrefillShare, RequestKey

NEVER_US = 1 << 62
MAX_POINTS = 600
MAX_FRESH = 200
_MANY_POINTS = 16  # from here on it pays to forget
_NOISE_TOKENS = 1e-6  # below this two token counts differ by rounding only


class RequestTimeline:
    """A request, from the first event about it until it is settled."""

    __slots__ = (
        "backend",
        "begin_us",
        "cache_told",
        "coarse",
        "counts",
        "decode_cost",
        "end_us",
        "first_us",
        "has_noted",
        "in_prefill_order",
        "incomplete",
        "key",
        "last_us",
        "microjoules",
        "noted_begin",
        "noted_counts",
        "noted_end",
        "prefill_from_us",
        "prefill_microjoules",
        "prompt_may_change",
        "prompt_tokens",
        "reported_prompt_tokens",
        "reports",
        "steady_from_us",
        "steady_to_us",
        "timed",
        "times",
        "tokens_per_us",
        "used_alone",
        "weighed_prompt_tokens",
    )  # fmt: skip

    def __init__(self, key: RequestKey) -> None:
        self.key = key
        # Noted, not absorbed yet.
        self.noted_begin: tuple[int, str, int, int, bool, tuple[int, ...]] | None = None
        self.noted_end: tuple[int, int, int, int, int, bool] | None = None  # -1: not said
        self.noted_counts: list[tuple[int, int]] = []
        self.has_noted = False
        # Absorbed.
        self.backend = ""
        self.decode_cost: tuple[int, ...] = ()
        """A decode_weights.DecodeCost; empty: not profiled."""
        self.begin_us = self.end_us = self.first_us = NEVER_US
        self.last_us = -NEVER_US
        self.prompt_may_change = False
        self.prefill_from_us = NEVER_US
        self.in_prefill_order = False
        self.prompt_tokens = 0
        """Those that were computed."""
        self.reported_prompt_tokens = 0
        """All of them, as vLLM's own counter has them."""
        self.weighed_prompt_tokens = 0
        """How many of these `other` was last weighed against."""
        self.prefill_microjoules = 0.0
        self.times: list[int] = []
        self.counts: list[int] = []
        # While (steady_from_us, steady_to_us] lasts it only decodes, at `tokens_per_us`.
        self.steady_from_us, self.steady_to_us, self.tokens_per_us = 1, 0, 0.0
        self.reports = 0
        """Counts of its tokens before its end."""
        self.timed = self.cache_told = False
        """Whether its end said how long it was queued, and what was found in a cache."""
        # What came of it.
        self.microjoules = 0
        self.used_alone = True
        self.coarse = self.incomplete = False

    def note_begin(
        self,
        at_us: int,
        backend: str,
        prompt_tokens: int,
        prefill_microjoules: int,
        may_change: bool,
        decode_cost: tuple[int, ...] = (),
    ) -> None:
        """Note its beginning; one that was absorbed stays."""
        said = (at_us, backend, prompt_tokens, prefill_microjoules, may_change, decode_cost)
        if not self.times and (self.noted_begin is None or said < self.noted_begin):
            self.noted_begin = said
            self.has_noted = True

    def note_progress(self, at_us: int, tokens: int) -> None:
        """Note how many tokens it had."""
        self.noted_counts.append((at_us, tokens))
        self.has_noted = True

    def note_end(
        self,
        at_us: int,
        tokens: int,
        prompt: int,
        cached: int,
        queue_us: int,
        unseen: bool = False,
    ) -> None:
        """Note its end; one that was absorbed stays."""
        said = (at_us, tokens, prompt, cached, queue_us, unseen)
        if self.end_us == NEVER_US and (self.noted_end is None or said < self.noted_end):
            self.noted_end = said
            self.has_noted = True

    def force_end(self, at_us: int) -> None:
        """End it without having seen its end."""
        self.incomplete = True
        self.note_end(max(at_us, self.latest_us), 0, -1, -1, -1)

    @property
    def latest_us(self) -> int:
        """When the last event about it was."""
        begun_us = self.noted_begin[0] if self.noted_begin else -NEVER_US
        return max(begun_us, self.last_us, *(at for at, _ in self.noted_counts), -NEVER_US)

    @property
    def came_at_once(self) -> bool:
        """Whether its answer came whole, so that nobody saw when its tokens did."""
        return self.end_us != NEVER_US and self.reports <= 1

    @property
    def prefilled_us(self) -> int:
        """When its prefill ended, `NEVER_US` while that is not known."""
        return min(self.first_us, self.end_us)

    def find_turn_us(self, prefilled_us: int) -> int:
        """Return when its prefill began, which ended then."""
        from_us = self.begin_us if self.prefill_from_us == NEVER_US else self.prefill_from_us
        return min(from_us, prefilled_us - 1)

    def apply_events(self, settled_us: int) -> None:
        """Take in what was noted; `settled_us` is the horizon that nothing reaches behind."""
        self.has_noted = False
        if self.noted_begin is None:
            return
        if not self.times:
            self._apply_begin(settled_us)
        elif self._apply_next_count(settled_us):
            return
        before = self.count_tokens_at(settled_us)
        if self.noted_end is not None and self.end_us == NEVER_US:
            self._apply_end(*self.noted_end)
        for at_us, tokens in sorted(self.noted_counts):
            self._insert_count(min(at_us, self.end_us), tokens)
        self.noted_counts.clear()
        if self.count_tokens_at(settled_us) > before + _NOISE_TOKENS:
            self.incomplete = True
        self._forget_points(settled_us)
        if len(self.times) > MAX_POINTS:
            del self.times[1:-1:2], self.counts[1:-1:2]
        self.steady_from_us, self.steady_to_us = 1, 0

    def thin_events(self, settled_us: int) -> None:
        """Take in what was noted, or half of it while its beginning is not known."""
        self.apply_events(settled_us)
        self.has_noted = True
        if self.noted_counts:
            self.noted_counts.sort()
            del self.noted_counts[:-1:2]

    def count_tokens_at(self, at_us: int) -> float:
        """Tokens it had by then."""
        times, counts = self.times, self.counts
        place = bisect_right(times, at_us)
        if place == 0:
            return counts[0]
        before = counts[place - 1]
        if place == len(times) or counts[place] == before:
            return before
        start_us = times[place - 1]
        return before + (counts[place] - before) * (at_us - start_us) / (times[place] - start_us)

    def count_tokens_between(
        self, start_us: int, end_us: int, now_us: int, prefills: list[PrefillShare]
    ) -> float:
        """Tokens generated in (start, end]; its prefill there, if any, is added to `prefills`.

        A prefill that has not ended ends `now_us`.
        """
        prefilled_us = min(self.end_us, self.first_us)
        if start_us < prefilled_us:
            if prefilled_us == NEVER_US:
                prefilled_us, self.incomplete = max(now_us, end_us), True
            from_us = self.find_turn_us(prefilled_us)
            overlap_us = min(end_us, prefilled_us) - max(start_us, from_us)
            if overlap_us > 0 and self.prompt_tokens > 0:
                share = overlap_us / (prefilled_us - from_us)
                prefills.append(
                    (self, self.prefill_microjoules * share, self.prompt_tokens * share)
                )
        times, counts = self.times, self.counts
        place = bisect_right(times, end_us)
        if not 0 < place < len(times):
            return max(0.0, self.count_tokens_at(end_us) - self.count_tokens_at(start_us))
        since_us, until_us, before = times[place - 1], times[place], counts[place - 1]
        self.tokens_per_us = rate = (counts[place] - before) / (until_us - since_us)
        self.steady_from_us = max(prefilled_us, since_us)
        self.steady_to_us = until_us
        return max(0.0, before + rate * (end_us - since_us) - self.count_tokens_at(start_us))

    def _apply_next_count(self, settled_us: int) -> bool:
        """Take in one count that simply comes after the others, as most do; False if not so."""
        if self.noted_end is not None or len(self.noted_counts) != 1:
            return False
        ((at_us, tokens),) = self.noted_counts
        times = self.times
        if not at_us > times[-1] > settled_us or tokens < self.counts[-1]:
            return False
        if self.first_us == NEVER_US:
            return False
        times.append(at_us)
        self.counts.append(tokens)
        self.reports += 1
        self.last_us = at_us
        self.noted_counts.clear()
        if len(times) > _MANY_POINTS:
            self._forget_points(settled_us)
        return len(times) <= MAX_POINTS

    def _forget_points(self, settled_us: int) -> None:
        gone = bisect_right(self.times, settled_us) - 1
        if gone > 0:
            del self.times[:gone], self.counts[:gone]

    def _apply_begin(self, settled_us: int) -> None:
        assert self.noted_begin is not None  # noqa: S101 - for the type checker; absorb has looked
        at_us, self.backend, prompt, prefill, self.prompt_may_change, self.decode_cost = (
            self.noted_begin
        )
        self.begin_us = at_us
        self.last_us = at_us
        self.prompt_tokens = self.reported_prompt_tokens = max(0, prompt)
        self.prefill_microjoules = max(0, prefill)
        self.times.append(self.begin_us)
        self.counts.append(0)
        self.incomplete |= self.begin_us < settled_us

    def _apply_end(
        self, at_us: int, tokens: int, prompt: int, cached: int, queue_us: int, unseen: bool
    ) -> None:
        self.end_us = max(at_us, self.begin_us + 1)
        self.incomplete |= unseen
        self.timed, self.cache_told = queue_us >= 0, cached >= 0
        if queue_us >= 0:
            self.prefill_from_us = self.begin_us + queue_us
        if prompt >= 0:
            self.reported_prompt_tokens = prompt
        computed = max(0, self.reported_prompt_tokens - max(0, cached))
        if self.prompt_tokens > 0:
            self.prefill_microjoules *= computed / self.prompt_tokens
        self.prompt_tokens = computed
        while self.times[-1] > self.end_us and len(self.times) > 1:
            self.times.pop()
            tokens = max(tokens, self.counts.pop())
        self._insert_count(self.end_us, tokens, ends=True)

    def _insert_count(self, at_us: int, tokens: int, *, ends: bool = False) -> None:
        times, counts = self.times, self.counts
        at_us = max(at_us, self.begin_us + 1)
        if not ends:
            self.first_us = min(self.first_us, at_us)
        self.last_us = max(self.last_us, at_us)
        place = bisect_right(times, at_us)
        if place == 0:  # behind the points that are left
            counts[0] = max(counts[0], tokens)
            place = 1
        elif counts[place - 1] > tokens:
            return
        elif times[place - 1] == at_us:
            counts[place - 1] = tokens
        else:
            times.insert(place, at_us)
            counts.insert(place, tokens)
            self.reports += not ends
            place += 1
        while place < len(times) and counts[place] < tokens:
            del times[place], counts[place]
