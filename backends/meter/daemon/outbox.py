"""Unacknowledged messages to one gateway, resent until acknowledged.

PURE: no clock. Numbers rise over all outboxes of a meter, so that a gateway that expired and comes
back never takes a new message for one that it has had.
"""

from collections import deque
from collections.abc import Iterator

from backends.meter.method import MeteringMethod
from backends.meter.protocol import EnergyObservation, UnattributedEnergy

MAX_UNACKNOWLEDGED = 6_000
_MAX_PER_ACK = 5_000
"""In one response; the rest comes with the next."""


class GatewayOutbox:
    """The messages of one gateway, oldest first."""

    def __init__(self, numbers: Iterator[int], most_kept: int = MAX_UNACKNOWLEDGED) -> None:
        self.dropped = 0
        """Messages dropped because the gateway did not fetch them."""
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
        """Forget messages up to this number; one never given out is some other meter's."""
        if number > self._highest:
            return
        while self._unacknowledged and self._unacknowledged[0].number <= number:
            self._unacknowledged.popleft()

    def list_unacknowledged(self) -> tuple[list[EnergyObservation], list[UnattributedEnergy]]:
        """Return the oldest messages that are kept."""
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
