"""When a prefill began, where nobody said: when the one before it ended.

PURE: no clock, no I/O.

Rules:
- Backends take prompts first come, first served. So a prefill begins when the last first chunk came
  of those that had begun no later, if that was after its own beginning.
- First chunks within `SAME_STEP_US` of each other are of prompts that were prefilled together.
"""

from bisect import bisect_left, insort

from backends.meter.ledger.request import NEVER_US, Tracked

SAME_STEP_US = 100_000


class Turns:
    """First chunks by backend, and the requests whose turn is to be found."""

    def __init__(self) -> None:
        self._firsts: dict[str, list[tuple[int, int]]] = {}  # (first chunk, beginning)
        self._waiting: list[Tracked] = []

    def add(self, request: Tracked) -> None:
        """Take a request whose prefill has ended, once."""
        request.in_turns = True
        if request.prefill_from_us == NEVER_US:
            self._waiting.append(request)
        if request.first_us != NEVER_US:
            firsts = self._firsts.setdefault(request.backend, [])
            insort(firsts, (request.first_us, request.begin_us))

    def settle(self, settled_us: int) -> None:
        """Find the turns of all that were added, and forget what the horizon has passed."""
        for request in self._waiting:
            request.prefill_from_us = self._turn(request)
        self._waiting.clear()
        for backend, firsts in list(self._firsts.items()):
            del firsts[: bisect_left(firsts, (settled_us, 0))]
            if not firsts:
                del self._firsts[backend]

    def _turn(self, request: Tracked) -> int:
        firsts = self._firsts.get(request.backend, [])
        place = bisect_left(firsts, (request.prefilled_us - SAME_STEP_US, 0))
        while place and firsts[place - 1][0] > request.begin_us:
            place -= 1
            if firsts[place][1] <= request.begin_us:
                return firsts[place][0]
        return request.begin_us
