"""Who is served next of those that wait: by priority, then in turn of their keys.

Rules: a higher priority goes first; within one, the keys take turns, each served in the order of
arrival, so that a key with a thousand requests waiting delays another's only one by one. Of a full
queue the newest of the key that has most waiting makes room for a key that has fewer, and never for
a lower priority. It knows no clock and no event loop.
"""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

_Waiter = TypeVar("_Waiter")


class FairQueue(Generic[_Waiter]):
    """Waiters by priority and key."""

    def __init__(self) -> None:
        self._lanes: dict[int, OrderedDict[str, deque[_Waiter]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, waiter: _Waiter, key: str, priority: int = 0) -> None:
        """Put a waiter behind those of its key."""
        lane = self._lanes.setdefault(priority, OrderedDict())
        lane.setdefault(key, deque()).append(waiter)
        self._count += 1

    def remove(self, waiter: _Waiter, key: str, priority: int = 0) -> bool:
        """Take out a waiter that waits no more; tell whether it was there."""
        lane = self._lanes.get(priority, OrderedDict())
        waiting = lane.get(key)
        if waiting is None or waiter not in waiting:
            return False
        waiting.remove(waiter)
        self._forget_empty(key, priority)
        return True

    def pop_next(self) -> _Waiter | None:
        """Take out who is next; None where nobody waits."""
        if not self._count:
            return None
        priority = max(self._lanes)
        lane = self._lanes[priority]
        key, waiting = next(iter(lane.items()))
        waiter = waiting.popleft()
        lane.move_to_end(key)
        self._forget_empty(key, priority)
        return waiter

    def count_before(self, key: str, priority: int = 0) -> int:
        """Return how many would be served before a newcomer of this key."""
        above = sum(
            len(waiting)
            for rank, lane in self._lanes.items()
            if rank > priority
            for waiting in lane.values()
        )
        lane = self._lanes.get(priority, OrderedDict())
        own = len(lane.get(key, ()))
        others = (min(len(waiting), own + 1) for name, waiting in lane.items() if name != key)
        return above + own + sum(others)

    def evict_for(self, key: str, priority: int = 0) -> _Waiter | None:
        """Take out the waiter that has to make room for a newcomer; None: the newcomer has to."""
        if not self._count:
            return None
        lowest = min(self._lanes)
        lane = self._lanes[lowest]
        longest = max(lane, key=lambda name: len(lane[name]))
        own = len(lane.get(key, ())) if lowest == priority else 0
        if lowest > priority or (lowest == priority and len(lane[longest]) <= own + 1):
            return None
        waiter = lane[longest].pop()
        self._forget_empty(longest, lowest)
        return waiter

    def _forget_empty(self, key: str, priority: int) -> None:
        """Count one out, and keep nothing of a key or a priority that nobody waits with."""
        self._count -= 1
        lane = self._lanes[priority]
        if not lane[key]:
            del lane[key]
        if not lane:
            del self._lanes[priority]
