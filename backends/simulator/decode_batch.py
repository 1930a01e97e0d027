"""Those that decode, with sums that grow by a step in constant time however many they are.

PURE: no clock, no I/O.

Rules:
- Between two changes of who is in it, every member gets one token a step: what each has spent is
  found when somebody asks (`sync`), in closed form.
- Members come and go one by one; the sums of their prices are kept up by adding and subtracting,
  and are exactly zero whenever nobody is left.
"""

from heapq import heappop, heappush

from backends.simulator.engine_request import EngineRequest


class PriceSums:
    """The sums of one unit, joules or seconds, over the members."""

    __slots__ = ("chunk_fixed", "context", "fixed", "own", "per_context")

    def __init__(self) -> None:
        self.fixed = self.chunk_fixed = self.own = 0.0
        self.per_context = 0.0
        """What all contexts together grow dearer by in a step."""
        self.context = 0.0
        """What reading all contexts costs in the next step."""

    def add(self, request: EngineRequest, sign: float, *, joules: bool) -> None:
        """Take a member in (1) or out (-1)."""
        price = request.joules if joules else request.seconds
        self.fixed += sign * price.fixed
        self.chunk_fixed += sign * price.chunk_fixed
        self.own += sign * price.per_sequence
        self.per_context += sign * price.per_context_token
        self.context += sign * price.per_context_token * (request.context + 0.5)


class DecodeBatch:
    """The decoding requests of an engine, in the order in which they came."""

    def __init__(self) -> None:
        self.members: dict[str, EngineRequest] = {}
        self.joules, self.seconds = PriceSums(), PriceSums()
        self._steps = 0
        self._shared_joules = 0.0
        self._ends: list[tuple[int, int, EngineRequest]] = []
        self._serial = 0
        self._tokens: list[tuple[str, int]] | None = None

    def __len__(self) -> int:
        return len(self.members)

    @property
    def tokens(self) -> list[tuple[str, int]]:
        """A token for each; the same list until somebody comes or goes."""
        if self._tokens is None:
            self._tokens = [(name, 1) for name in self.members]
        return self._tokens

    def join(self, request: EngineRequest) -> None:
        """Let a request decode from the next step on."""
        self.members[request.request_id] = request
        request.synced_step, request.synced_shared = self._steps, self._shared_joules
        self._count(request, 1.0)
        self._expect_end(request)

    def leave(self, request: EngineRequest) -> None:
        """Take a member out, with all that it has spent."""
        self.sync(request)
        del self.members[request.request_id]
        if self.members:
            self._count(request, -1.0)
            return
        self.joules, self.seconds = PriceSums(), PriceSums()
        self._tokens = None
        self._shared_joules = 0.0
        self._ends.clear()

    def advance(self, share_joules: float, drafts: int) -> None:
        """All get a token; each carries its own parts and `share_joules` of the fixed ones."""
        self._steps += 1
        self._shared_joules += share_joules
        for sums in (self.joules, self.seconds):
            sums.context += sums.per_context
        if drafts > 1:  # drafted tokens are computed beside it
            for request in self.members.values():
                request.decode_joules += (drafts - 1) * request.joules.per_sequence

    def accept(self, request: EngineRequest, more: int) -> int:
        """Give a member further tokens of the step that was; how many it got."""
        self.sync(request)
        more = min(more, request.left)
        if more:
            self._count(request, -1.0)
            request.left -= more
            request.context += more
            self._count(request, 1.0)
            self._expect_end(request)
        return more

    def pop_ended(self) -> list[EngineRequest]:
        """Return those that have all their tokens; they are still members."""
        ended = []
        while self._ends and self._ends[0][0] <= self._steps:
            _, _, request = heappop(self._ends)
            if self.members.get(request.request_id) is request:
                self.sync(request)
                if not request.left and request not in ended:
                    ended.append(request)
        return ended

    def tokens_of(self, request: EngineRequest) -> int:
        """New tokens that a member has by now; nothing is changed by asking."""
        return request.tokens_out - request.left + self._steps - request.synced_step

    def sync(self, request: EngineRequest) -> None:
        """Bring what a member has spent and got up to now."""
        steps = self._steps - request.synced_step
        if not steps:
            return
        price = request.joules
        read = steps * (request.context + 0.5) + steps * (steps - 1) / 2
        request.decode_joules += self._shared_joules - request.synced_shared
        request.decode_joules += steps * price.per_sequence + price.per_context_token * read
        request.left -= steps
        request.context += steps
        request.synced_step, request.synced_shared = self._steps, self._shared_joules

    def _count(self, request: EngineRequest, sign: float) -> None:
        self.joules.add(request, sign, joules=True)
        self.seconds.add(request, sign, joules=False)
        self._tokens = None

    def _expect_end(self, request: EngineRequest) -> None:
        self._serial += 1
        heappush(self._ends, (self._steps + request.left, self._serial, request))
