"""When a prefill began, where nobody said: when the one before it ended.

PURE: no clock, no I/O.

Rules:
- Backends take prompts first come, first served. So a prefill begins when the last first chunk came
  of those that had begun no later, if that was after its own beginning.
- First chunks within `SAME_STEP_US` of each other are of prompts that were prefilled together.
"""

from bisect import bisect_left, insort

from backends.meter.ledger.request import NEVER_US, RequestTimeline

SAME_STEP_US = 100_000


class PrefillOrder:
    """First chunks by backend, and the requests whose turn is to be found."""

    def __init__(self) -> None:
        self._firsts: dict[str, list[tuple[int, int]]] = {}  # (first chunk, beginning)
        self._waiting: list[RequestTimeline] = []

    def add_request(self, request: RequestTimeline) -> None:
        """Take a request whose prefill has ended, once."""
        request.in_prefill_order = True
        if request.prefill_from_us == NEVER_US:
            self._waiting.append(request)
        if request.first_us != NEVER_US:
            firsts = self._firsts.setdefault(request.backend, [])
            insort(firsts, (request.first_us, request.begin_us))

    def resolve_starts(self, settled_us: int) -> None:
        """Find the turns of all that were added, and forget what the horizon has passed."""
        for request in self._waiting:
            request.prefill_from_us = self._find_start_us(request)
        self._waiting.clear()
        for backend, firsts in list(self._firsts.items()):
            del firsts[: bisect_left(firsts, (settled_us, 0))]
            if not firsts:
                del self._firsts[backend]

    def _find_start_us(self, request: RequestTimeline) -> int:
        firsts = self._firsts.get(request.backend, [])
        place = bisect_left(firsts, (request.prefilled_us - SAME_STEP_US, 0))
        while place and firsts[place - 1][0] > request.begin_us:
            place -= 1
            if firsts[place][1] <= request.begin_us:
                return firsts[place][0]
        return request.begin_us
