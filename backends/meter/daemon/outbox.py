"""What a gateway is still to be told: numbered, and repeated until it says that it has it.

PURE: no clock. Numbers rise over all outboxes of a meter, so that a gateway that was forgotten and
comes back never takes something new for something it has had.
"""

from collections import deque
from collections.abc import Iterator

from backends.meter.protocol import Method, Observation, Spending

MOST_KEPT = 20_000
_MOST_TOLD = 5_000
"""In one answer; the rest comes with the next."""


class Outbox:
    """One gateway's."""

    def __init__(self, numbers: Iterator[int], most_kept: int = MOST_KEPT) -> None:
        self.dropped = 0
        """How many were never told because the gateway did not fetch them."""
        self._numbers = numbers
        self._most_kept = most_kept
        self._kept: deque[Observation | Spending] = deque()
        self._highest = 0

    def observe(self, request: int, microjoules: int, method: Method) -> None:
        """Add a request's energy."""
        self._add(Observation(next(self._numbers), request, microjoules, method))

    def spend(self, backend: str, *, idle: int = 0, other: int = 0) -> None:
        """Add what a backend spent on no request, in microjoules."""
        if idle:
            self._add(Spending(next(self._numbers), backend, "idle", idle))
        if other:
            self._add(Spending(next(self._numbers), backend, "other", other))

    def received(self, number: int) -> None:
        """Forget what is numbered up to this; a number never given out is some other meter's."""
        if number > self._highest:
            return
        while self._kept and self._kept[0].number <= number:
            self._kept.popleft()

    def tell(self) -> tuple[list[Observation], list[Spending]]:
        """Return the oldest of what is kept."""
        observations, spendings = [], []
        for index, one in enumerate(self._kept):
            if index == _MOST_TOLD:
                break
            if isinstance(one, Observation):
                observations.append(one)
            else:
                spendings.append(one)
        return observations, spendings

    def __len__(self) -> int:
        return len(self._kept)

    def _add(self, one: Observation | Spending) -> None:
        self._kept.append(one)
        self._highest = one.number
        if len(self._kept) > self._most_kept:
            self._kept.popleft()
            self.dropped += 1
