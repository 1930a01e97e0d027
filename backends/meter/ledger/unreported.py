"""Tokens that a backend counted and no gateway reported: the pseudo-request `other`.

PURE: no clock, no I/O. Times are integer microseconds of the meter's clock.

Rules:
- A poll closes a window. Once all events up to its end are known, what the backend counted in it
  minus what gateways reported for it is carried. Once that is beyond the noise (two tokens a
  request that was there, and a tenth of the prompts reported, which are estimates until their ends)
  it is other's, spread evenly over the window. A shortfall is kept (a token counted just before and
  reported just after a poll is no other's), down to `MAX_SHORTFALL_TOKENS`.
- A prompt counts when its prefill ends, all of it, as the backend's own counter does it; what its
  end says is another count is made up for then.
- Intervals wait for the poll that covers them, three periods at most, and not at all once polls
  have stopped.
- A counter that falls has been reset: its window says nothing.
"""

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from backends.meter.ledger.apportion import PrefillShare, RequestKey
from backends.meter.ledger.request import RequestTimeline

MAX_SHORTFALL_TOKENS = 2000.0
_MAX_WINDOWS = 600
_PERIODS = 3
_NOISE_TOKENS = 2.0
_NOISE_SHARE = 0.1


class _PollWindow(NamedTuple):
    from_us: int
    to_us: int
    prompt: float
    generated: float
    known: bool = True


class UnattributedTokens:
    """One backend's unreported tokens, weighed like a request of their own."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.key: RequestKey = (backend, -1)
        self.microjoules = 0
        self._period_us = 1_000_000
        self._last_us: int | None = None
        self._totals: tuple[int, int] | None = None
        self._covered_us = 0
        self._poll_windows: deque[_PollWindow] = deque(maxlen=_MAX_WINDOWS)
        self._other_windows: deque[_PollWindow] = deque(maxlen=_MAX_WINDOWS)
        self._prompt_carry = self._generated_carry = 0.0
        self._prompt_seen = self._prefill_seen = 0

    def learn_prompt_cost(self, request: RequestTimeline) -> None:
        """Learn from a request what a prompt token costs here."""
        self._prompt_seen += request.prompt_tokens
        self._prefill_seen += int(request.prefill_microjoules)

    def record_token_counts(self, at_us: int, prompt_tokens: int, generated_tokens: int) -> None:
        """The backend's own cumulative counters were this much then."""
        old, self._totals = self._totals, (prompt_tokens, generated_tokens)
        last_us = self._last_us
        if last_us is not None and at_us <= last_us:
            return
        self._last_us = at_us
        if old is None or last_us is None:
            self._covered_us = at_us
            return
        self._period_us = min(max(at_us - last_us, 100_000), 10_000_000)
        prompt, generated = prompt_tokens - old[0], generated_tokens - old[1]
        self._poll_windows.append(
            _PollWindow(last_us, at_us, prompt, generated, known=prompt >= 0 and generated >= 0)
        )

    def advance_limit_us(
        self, now_us: int, horizon_us: int, settled_us: int, requests: Collection[RequestTimeline]
    ) -> int:
        """Weigh the windows known up to the horizon; how far intervals may settle here."""
        if self._last_us is None:  # the first poll is still to come
            self._last_us = now_us
        while self._poll_windows and self._poll_windows[0].to_us <= horizon_us:
            window = self._poll_windows.popleft()
            self._covered_us = window.to_us
            if window.known and window.from_us >= settled_us:
                self._weigh_window(window, requests)
        while self._other_windows and self._other_windows[0].to_us <= settled_us:
            self._other_windows.popleft()
        if now_us - self._last_us > _PERIODS * self._period_us:
            return horizon_us
        return min(horizon_us, max(self._covered_us, now_us - _PERIODS * self._period_us))

    def count_tokens_between(
        self, start_us: int, end_us: int, prefills: list[PrefillShare]
    ) -> float:
        """Tokens generated in (start, end]; the prefill there, if any, is added to `prefills`."""
        prompt = generated = 0.0
        for window in self._other_windows:
            overlap_us = min(end_us, window.to_us) - max(start_us, window.from_us)
            if overlap_us > 0:
                share = overlap_us / (window.to_us - window.from_us)
                prompt += share * window.prompt
                generated += share * window.generated
        if prompt > 0:
            prefills.append((self, prompt * self._prefill_seen / max(1, self._prompt_seen), prompt))
        return generated

    def _weigh_window(self, window: _PollWindow, requests: Collection[RequestTimeline]) -> None:
        prompt, generated = window.prompt, window.generated
        noise = reported = 0.0
        for request in requests:
            if request.backend != self.backend or request.begin_us >= window.to_us:
                continue
            if request.end_us <= window.from_us:
                continue
            noise += _NOISE_TOKENS
            generated -= request.count_tokens_at(window.to_us) - request.count_tokens_at(
                window.from_us
            )
            if window.from_us < request.prefilled_us <= window.to_us:
                reported += request.reported_prompt_tokens
                request.weighed_prompt_tokens = request.reported_prompt_tokens
            elif window.from_us < request.end_us <= window.to_us:
                prompt -= request.reported_prompt_tokens - request.weighed_prompt_tokens
        prompt += self._prompt_carry - reported
        generated += self._generated_carry
        prompt, self._prompt_carry = _split_carry(prompt, noise + _NOISE_SHARE * reported)
        generated, self._generated_carry = _split_carry(generated, noise)
        if prompt or generated:
            self._other_windows.append(window._replace(prompt=prompt, generated=generated))


def _split_carry(tokens: float, noise: float) -> tuple[float, float]:
    """What of them is other's, and what is carried on."""
    if tokens > noise:
        return tokens, 0.0
    return 0.0, max(-MAX_SHORTFALL_TOKENS, tokens)
