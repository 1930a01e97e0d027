"""The retry budget: attempts beyond a request's first may be a share of what is in flight."""


class RetryBudget:
    """Counts requests that hold a retry against those in flight (as Envoy's budget does)."""

    __slots__ = ("_floor", "_ratio", "inflight", "retrying")

    def __init__(self, ratio: float = 0.2, floor: int = 3) -> None:
        self._ratio = ratio
        self._floor = floor
        self.inflight = 0
        self.retrying = 0

    def take_token(self) -> bool:
        """Count one more request as retrying, if the budget allows it."""
        if self.retrying >= max(self._floor, self._ratio * self.inflight):
            return False
        self.retrying += 1
        return True
