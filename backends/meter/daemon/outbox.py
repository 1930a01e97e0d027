"""What a gateway is still to be told: numbered, and repeated until it says that it has it.

PURE: no clock. Numbers rise over all outboxes of a meter, so that a gateway that was forgotten and
comes back never takes something new for something it has had.
"""

from collections import deque
from collections.abc import Iterator

from backends.meter.protocol import EnergyObservation, MeteringMethod, UnattributedEnergy

MAX_UNACKNOWLEDGED = 20_000
_MAX_PER_ACK = 5_000
"""In one answer; the rest comes with the next."""


class GatewayOutbox:
    """One gateway's."""

    def __init__(self, numbers: Iterator[int], most_kept: int = MAX_UNACKNOWLEDGED) -> None:
        self.dropped = 0
        """How many were never told because the gateway did not fetch them."""
        self._numbers = numbers
        self._most_kept = most_kept
        self._unacknowledged: deque[EnergyObservation | UnattributedEnergy] = deque()
        self._highest = 0

    def add_observation(self, request: int, microjoules: int, method: MeteringMethod) -> None:
        """Add a request's energy."""
        self._append_message(EnergyObservation(next(self._numbers), request, microjoules, method))

    def add_unattributed(self, backend: str, *, idle: int = 0, other: int = 0) -> None:
        """Add what a backend spent on no request, in microjoules."""
        if idle:
            self._append_message(UnattributedEnergy(next(self._numbers), backend, "idle", idle))
        if other:
            self._append_message(UnattributedEnergy(next(self._numbers), backend, "other", other))

    def acknowledge_through(self, number: int) -> None:
        """Forget what is numbered up to this; a number never given out is some other meter's."""
        if number > self._highest:
            return
        while self._unacknowledged and self._unacknowledged[0].number <= number:
            self._unacknowledged.popleft()

    def list_unacknowledged(self) -> tuple[list[EnergyObservation], list[UnattributedEnergy]]:
        """Return the oldest of what is kept."""
        observations, spendings = [], []
        for index, one in enumerate(self._unacknowledged):
            if index == _MAX_PER_ACK:
                break
            if isinstance(one, EnergyObservation):
                observations.append(one)
            else:
                spendings.append(one)
        return observations, spendings

    def __len__(self) -> int:
        return len(self._unacknowledged)

    def _append_message(self, one: EnergyObservation | UnattributedEnergy) -> None:
        self._unacknowledged.append(one)
        self._highest = one.number
        if len(self._unacknowledged) > self._most_kept:
            self._unacknowledged.popleft()
            self.dropped += 1
