"""What all requests of a process hold at once of bodies and whole answers, and its bound.

A request beyond it is refused at once: a gateway that is killed for its memory refuses everybody.
"""

from gateway.service.client.errors import OverCapacity


class ByteBudget:
    """Counts bytes in flight; one for a process."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class HeldBytes:
    """One request's, or one answer's, share of the budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> None:
        """Take so many more. Raises OverCapacity."""
        budget = self._budget
        if budget.held + count > budget.most:
            raise OverCapacity(
                f"the gateway holds {budget.held} bytes of requests and answers at the moment; "
                f"{count} more are over its limit of {budget.most}",
                retry_after_seconds=1,
            )
        budget.held += count
        self._held += count

    def release(self) -> None:
        """Give them all back."""
        self._budget.held -= self._held
        self._held = 0
