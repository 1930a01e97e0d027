"""What all requests of a gateway hold at once of bodies and whole answers, and its bound.

A request beyond it is refused at once: a gateway that is killed for its memory refuses everybody.
The last eighth is for what is small: a few clients that announce large bodies and are slow to send
them do not keep everybody else out.
"""

from typing import Final

from backends.worker_table import SharedCount
from gateway.service.client.errors import OverCapacity

_SMALL_BYTES: Final = 64 * 1024


class ByteBudget:
    """Counts bytes in flight; one for a process, which may share the count with other workers."""

    __slots__ = ("_held", "_shared", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._held = 0
        self._shared: SharedCount | None = None

    def share(self, shared: SharedCount | None) -> None:
        """Count with the other workers of this host from now on; None: by itself."""
        self._shared = shared
        if shared is not None:
            shared.set(self._held)

    @property
    def held(self) -> int:
        """The bytes that are held now, by all workers."""
        return self._held if self._shared is None else self._shared.total

    def add(self, count: int) -> None:
        """Count bytes in, or out where `count` is negative."""
        self._held += count
        if self._shared is not None:
            self._shared.set(self._held)


class HeldBytes:
    """One request's, or one answer's, share of the budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> None:
        """Take so many more. Raises OverCapacity."""
        budget = self._budget
        held = budget.held
        most = budget.most if count <= _SMALL_BYTES else budget.most - budget.most // 8
        if held + count > most:
            raise OverCapacity(
                f"the gateway holds {held} bytes of requests and answers at the moment; "
                f"{count} more are over its limit of {most}",
                retry_after_seconds=1,
            )
        budget.add(count)
        self._held += count

    def release(self) -> None:
        """Give them all back."""
        self._budget.add(-self._held)
        self._held = 0
