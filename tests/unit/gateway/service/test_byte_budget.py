"""What a process may hold at once."""

import pytest

from gateway.service.byte_budget import ByteBudget, HeldBytes
from gateway.service.client.errors import OverCapacity


def test_beyond_the_budget_nothing_more_is_held():
    budget = ByteBudget(10)
    one, other = HeldBytes(budget), HeldBytes(budget)
    one.hold(4)
    one.hold(2)
    other.hold(4)
    with pytest.raises(OverCapacity, match="holds 10 bytes") as caught:
        other.hold(1)
    assert (caught.value.status, caught.value.retry_after_seconds) == (503, 1)
    one.release()
    other.hold(6)
    other.release()
    other.release()
    assert budget.held == 0


def test_the_last_eighth_is_for_what_is_small():
    budget = ByteBudget(8 << 20)
    slow = HeldBytes(budget)
    for _ in range(7):
        slow.hold(1 << 20)
    with pytest.raises(OverCapacity):
        HeldBytes(budget).hold(1 << 20)
    small = [HeldBytes(budget) for _ in range(16)]
    for one in small:
        one.hold(64 << 10)
    with pytest.raises(OverCapacity):
        HeldBytes(budget).hold(1)
