"""How much of a meter's memory each sender may fill: requests, events and sessions.

PURE: no clock.

Rules:
- A sender may have as much as is free: an address as many open requests as nobody has, a gateway
  half of that. So one sender alone gets a part and never all, and whoever comes later finds room
  (the dynamic thresholds of Choudhury and Hahne, IEEE/ACM Trans. Networking 6(2), 1998).
- What is beyond is refused and counted, never the sender's other events.
- Counts of tokens are kept until they are settled; being cumulative, one that is refused costs
  nothing but when its tokens came.
"""

from collections import Counter, deque

from backends.meter.daemon.counter import MICRO

MAX_OPEN_REQUESTS = 24_000
MAX_KEPT_COUNTS = 240_000
MAX_GATEWAYS = 256
MAX_GATEWAYS_PER_ADDRESS = 64
_MAX_UNKNOWN = 100
_UNKNOWN_PERIOD_US = 10 * MICRO


class SenderUsage:
    """What one gateway has of the meter's memory."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.open_requests = 0
        self.kept_counts = 0
        self.counts_by_second: deque[list[int]] = deque()
        """[when they came, how many], oldest first."""
        self._unknown_since_us = 0
        self._unknown_events = 0

    def admit_unknown(self, now_us: int) -> bool:
        """Whether an event of a request that never began may wait for its beginning."""
        if now_us - self._unknown_since_us > _UNKNOWN_PERIOD_US:
            self._unknown_since_us, self._unknown_events = now_us, 0
        self._unknown_events += 1
        return self._unknown_events <= _MAX_UNKNOWN


class MeterQuotas:
    """What all senders have together."""

    def __init__(
        self, max_open: int = MAX_OPEN_REQUESTS, max_kept_counts: int = MAX_KEPT_COUNTS
    ) -> None:
        self.open_requests = 0
        self.refused: Counter[str] = Counter()
        """Events by the reason why they were refused."""
        self._max_open = max_open
        self._max_kept_counts = max_kept_counts
        self._kept_counts = 0
        self._open_by_address: Counter[str] = Counter()

    def refuse_event(self, reason: str) -> None:
        """Count an event that is not taken."""
        self.refused[reason] += 1

    def has_room_for_request(self, sender: SenderUsage) -> bool:
        """Whether a sender may begin one request more."""
        free = self._max_open - self.open_requests
        return 2 * sender.open_requests < free and self._open_by_address[sender.address] < free

    def add_request(self, sender: SenderUsage) -> None:
        """Note a request that began."""
        self.open_requests += 1
        sender.open_requests += 1
        self._open_by_address[sender.address] += 1

    def remove_requests(self, sender: SenderUsage, count: int = 1) -> None:
        """Note requests that are settled or forgotten."""
        self.open_requests -= count
        sender.open_requests -= count
        self._open_by_address[sender.address] -= count
        if not self._open_by_address[sender.address]:
            del self._open_by_address[sender.address]

    def admit_count(self, sender: SenderUsage, now_us: int, settled_us: int) -> bool:
        """Keep a count of tokens until what is settled has passed it, if there is room."""
        self._drop_settled(sender, settled_us)
        if 2 * sender.kept_counts >= self._max_kept_counts - self._kept_counts:
            return False
        kept = sender.counts_by_second
        if not kept or now_us - kept[-1][0] >= MICRO:
            kept.append([now_us, 0])
        kept[-1][1] += 1
        sender.kept_counts += 1
        self._kept_counts += 1
        return True

    def forget_sender(self, sender: SenderUsage) -> None:
        """Note that nothing of a sender is kept any more."""
        self.remove_requests(sender, sender.open_requests)
        self._kept_counts -= sender.kept_counts
        sender.kept_counts = 0
        sender.counts_by_second.clear()

    def _drop_settled(self, sender: SenderUsage, settled_us: int) -> None:
        kept = sender.counts_by_second
        while kept and kept[0][0] + MICRO <= settled_us:
            _, count = kept.popleft()
            sender.kept_counts -= count
            self._kept_counts -= count
