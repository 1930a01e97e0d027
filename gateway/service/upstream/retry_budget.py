"""The retry budget: a token bucket over requests, so that retries stay a share of the traffic.

Each attempt beyond a request's first takes a token; a request earns a share of one. The tokens at
the start are an advance on what the first requests earn: however bad the storm, there are never
more than 1 + ratio attempts a request, once there were enough requests to earn the advance.
"""


class RetryBudget:
    """The tokens of one process."""

    __slots__ = ("_advance", "_max", "_ratio", "tokens")

    def __init__(self, ratio: float = 0.2, start: float = 3.0, most: float = 10.0) -> None:
        self._ratio = ratio
        self._max = max(most, start)
        self.tokens = self._advance = start

    def earn_token(self) -> None:
        """Note a request: it earns its share of a token."""
        if self._advance > 0.0:
            self._advance -= self._ratio
        else:
            self.tokens = min(self._max, self.tokens + self._ratio)

    def take_token(self) -> bool:
        """Take a token for one more attempt, if there is one."""
        # Five times a fifth is a whole, whatever floats say.
        if self.tokens < 1.0 - 1e-9:
            return False
        self.tokens -= 1.0
        return True
