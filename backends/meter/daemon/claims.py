"""What a gateway may claim of a backend: what is physical, and what vLLM's own counters allow.

PURE: no clock. Times are the meter's microseconds, energies microjoules.

Rules:
- One request generates at most `MAX_TOKENS_PER_SECOND`, and at most what its backend's counter
  advanced by since it began, and a margin for the time since the counter was read last. A prompt
  is held to its counter likewise once it has been computed.
- All requests together may claim what the counter advanced by and nobody has claimed yet. Where
  they claim more, somebody lies: the time since the last reading is disputed.
- A counter that has never moved is not believed: a server may be told to keep none.
- Nobody is blamed for what another may have claimed: only one whose claims alone reach the excess.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from backends.meter.daemon.counter import MICRO

MAX_TOKENS_PER_SECOND = 10_000
"""Of one request, all its choices together; servers of one GPU reach a tenth of it."""
MAX_PROMPT_TOKENS = 10_000_000
MAX_PREFILL_MICROJOULES_PER_TOKEN = 20 * MICRO
"""Ten times what a model of 400 billion parameters takes."""
_MARGIN_TOKENS = 256
_MARGIN_PER_SECOND = 4_000
_PROMPT_MARGIN_TOKENS = 8_192
_MAX_READINGS = 600
_STALE_US = 5 * MICRO
_NOISE_TOKENS = 64
_NOISE_SHARE = 0.05
_PROMPT_NOISE_TOKENS = 2_000
_PROMPT_NOISE_SHARE = 0.25
"""A prompt's tokens are an estimate until its end."""
_BLAMED_SHARE = 0.8


class CounterReading(NamedTuple):
    """A backend's own cumulative counters; prompts with what a cache spared."""

    at_us: int
    prompt_tokens: int
    generated_tokens: int


class TokenBalance:
    """Tokens of one kind that a backend counted and nobody has claimed yet."""

    def __init__(self, noise_tokens: int, noise_share: float) -> None:
        self._noise = noise_tokens, noise_share
        self._unclaimed = 0.0
        self._advances: deque[int] = deque(maxlen=_MAX_READINGS)
        self._claims: dict[str, int] = {}

    def add_claim(self, gateway: str, tokens: int) -> None:
        """Note tokens that a gateway claims."""
        self._claims[gateway] = self._claims.get(gateway, 0) + tokens

    def close_window(self, advance: int) -> tuple[float, dict[str, int]]:
        """Return by how much too many were claimed (0: not surely), and by whom how many."""
        claims, self._claims = self._claims, {}
        self._advances.append(advance)
        tokens, share = self._noise
        # The counter ran ahead of a request that is told of late, by at most all that it counted.
        left = min(self._unclaimed + advance - sum(claims.values()), sum(self._advances))
        excess = -left - tokens - share * sum(claims.values())
        self._unclaimed = max(left, 0.0) if excess > 0 else left
        return max(excess, 0.0), claims


class BackendClaims:
    """One backend's counters, and what was claimed of them."""

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._readings: deque[CounterReading] = deque(maxlen=_MAX_READINGS)
        self._advanced = False
        self.generated = TokenBalance(_NOISE_TOKENS, _NOISE_SHARE)
        self.prompts = TokenBalance(_PROMPT_NOISE_TOKENS, _PROMPT_NOISE_SHARE)

    def record_reading(self, reading: CounterReading) -> tuple[int, float, dict[str, int]]:
        """Return since when claims are disputed, by what share of them, and who claimed what.

        A share of 0 says that nothing is disputed.
        """
        last = self._readings[-1] if self._readings else None
        if last is None or (
            reading.prompt_tokens < last.prompt_tokens
            or reading.generated_tokens < last.generated_tokens
        ):
            self._begin_anew()
            self._readings.append(reading)
            return reading.at_us, 0.0, {}
        self._readings.append(reading)
        self._advanced |= reading.generated_tokens > last.generated_tokens
        found = []
        for balance, advance in (
            (self.prompts, reading.prompt_tokens - last.prompt_tokens),
            (self.generated, reading.generated_tokens - last.generated_tokens),
        ):
            excess, claims = balance.close_window(advance)
            found.append((excess / max(sum(claims.values()), 1), claims))
        share, claims = max(found, key=lambda one: one[0])
        return last.at_us, share if self._advanced else 0.0, claims

    @property
    def read_us(self) -> int:
        """When the counters were read last; 0 while they have not been."""
        return self._readings[-1].at_us if self._readings else 0

    def covers(self, begin_us: int, now_us: int) -> bool:
        """Whether the counters were read before a request began, and lately."""
        readings = self._readings
        return (
            bool(readings)
            and readings[0].at_us <= begin_us
            and (now_us - readings[-1].at_us <= _STALE_US)
        )

    def limit_tokens(self, begin_us: int, now_us: int) -> tuple[int, int] | None:
        """Return the most that a request begun then can have had.

        That is prompt tokens by the last reading, and generated tokens by now.
        """
        if not (self._advanced and self.covers(begin_us, now_us)):
            return None
        before = next(one for one in reversed(self._readings) if one.at_us <= begin_us)
        last = self._readings[-1]
        unread_seconds = (now_us - last.at_us) / MICRO
        return (
            last.prompt_tokens - before.prompt_tokens + _PROMPT_MARGIN_TOKENS,
            last.generated_tokens
            - before.generated_tokens
            + _MARGIN_TOKENS
            + round(_MARGIN_PER_SECOND * unread_seconds),
        )


def find_liar(share: float, claims: Mapping[str, int]) -> str | None:
    """Return the one gateway whose claims alone reach the excess; None where several do."""
    excess = share * sum(claims.values())
    able = [name for name, tokens in claims.items() if tokens >= _BLAMED_SHARE * excess]
    return able[0] if len(able) == 1 and len(claims) > 1 else None
