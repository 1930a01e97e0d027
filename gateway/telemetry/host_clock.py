"""A server's own watts, divided among the requests that it serves at each moment.

Rules of this file:

- At each moment the watts go to the requests being served, in equal parts; with none they are idle.
- So a request costs the integral of watts / (requests served) from its begin to its end. One
  running sum of that integral gives each request's part as a difference: this is the virtual time
  of processor sharing (A. Demers, S. Keshav, S. Shenker, SIGCOMM 1989), and takes O(1) a request.
- All parts + idle + what is in flight = watts x seconds, always; the watts may change on the way.
"""


class HostClock:
    """One server. Times are monotonic seconds; a time before the last one counts as the last."""

    __slots__ = ("_at", "_charged_joules", "_idle_joules", "_joules_each", "_serving", "_watts")

    def __init__(self, watts: float, now: float) -> None:
        """Begin at `now` with nothing served; `watts` is what the server draws from then on."""
        if not watts >= 0.0:
            raise ValueError(f"watts: {watts} is negative")
        self._watts = watts
        self._at = now
        self._serving = 0
        self._charged_joules = 0.0
        self._joules_each = 0.0
        self._idle_joules = 0.0

    def begin_request(self, now: float) -> float:
        """Count a request in; return the mark that `end_request` wants."""
        self._advance_to(now)
        self._serving += 1
        return self._joules_each

    def end_request(self, mark: float, now: float) -> float:
        """Count a request out; return its joules. Raises ValueError where none is served."""
        if not self._serving:
            raise ValueError("no request is being served")
        self._advance_to(now)
        self._serving -= 1
        return self._joules_each - mark

    def read_joules(self, mark: float, now: float) -> float:
        """Return the joules so far of a request that goes on."""
        self._advance_to(now)
        return self._joules_each - mark

    def take_idle_joules(self, now: float) -> float:
        """Return the joules that were nobody's since this was last asked."""
        self._advance_to(now)
        joules, self._idle_joules = self._idle_joules, 0.0
        return joules

    def change_watts(self, watts: float, now: float) -> None:
        """Let the server draw `watts` from `now` on."""
        self._advance_to(now)
        self._watts = watts

    def read_charged_joules(self, now: float) -> float:
        """Return watts x seconds so far: of requests, in flight and idle."""
        self._advance_to(now)
        return self._charged_joules

    def _advance_to(self, now: float) -> None:
        if now <= self._at:
            return
        joules = self._watts * (now - self._at)
        self._at = now
        self._charged_joules += joules
        if self._serving:
            self._joules_each += joules / self._serving
        else:
            self._idle_joules += joules
