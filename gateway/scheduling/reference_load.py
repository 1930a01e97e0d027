"""The one load at which models are compared: the time-mean of r over the fleet's requests.

Rules: r of a request is how many others run where it runs. With n_b requests at backend b the mean
over requests and time is (sum over b and time of n_b (n_b - 1)) / (sum of n_b). What is older than
the window is forgotten in steps of a thirtieth of it. Joules at each model's own load would make
whichever has the traffic look cheap, and keep it for ever.
"""

from collections import deque
from collections.abc import Iterable

WINDOW_SECONDS = 600.0
_STEPS = 30


class ReferenceLoad:
    """Keeps the mean from looks at the fleet; times are seconds of any one clock."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._steps: deque[list[float]] = deque()  # [began, others x seconds, requests x seconds]
        self._seen_at: float | None = None
        self._value: float | None = None

    def add(self, running: Iterable[int], at_seconds: float) -> None:
        """Note how many run at each backend, as they have since the last look."""
        last, self._seen_at = self._seen_at, at_seconds
        if last is None or at_seconds <= last:
            return
        # A process that was suspended has seen nothing in between.
        self._value = None
        elapsed = min(at_seconds - last, self._window_seconds / _STEPS)
        steps = self._steps
        if not steps or at_seconds - steps[-1][0] >= self._window_seconds / _STEPS:
            steps.append([at_seconds, 0.0, 0.0])
        while steps and at_seconds - steps[0][0] > self._window_seconds:
            steps.popleft()
        step = steps[-1]
        for count in running:
            if count > 0:
                step[1] += elapsed * count * (count - 1)
                step[2] += elapsed * count

    @property
    def value(self) -> float:
        """The mean of r; 0 where nothing ran."""
        if self._value is None:
            requests = sum(step[2] for step in self._steps)
            others = sum(step[1] for step in self._steps)
            self._value = others / requests if requests > 0.0 else 0.0
        return self._value
