"""Blocks of time and their arms: the same on every machine, balanced, and by lot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.switchback import ARMS, BASELINE, TREATMENT, Switchback

DAY = 86_400.0


@given(st.text(max_size=20), st.integers(), st.integers(-(10**6), 10**6))
def test_of_each_pair_of_blocks_either_arm_has_one(name, seed, pair):
    one = Switchback(name, seed)
    assert {one.arm_of(2 * pair), one.arm_of(2 * pair + 1)} == set(ARMS)


def test_the_lot_is_fixed_for_all_time():
    """Gateways of two versions must agree: a change of this list is a change of the contract."""
    one = Switchback("eco", 7)
    first = [one.arm_of(block) for block in range(0, 24, 2)]
    assert [arm == BASELINE for arm in first] == PINNED


PINNED = [False, True, True, False, True, False, True, True, True, True, False, True]


def test_the_lot_depends_on_name_and_seed_and_is_fair():
    draws = {
        (name, seed): [Switchback(name, seed).arm_of(2 * k) for k in range(1000)]
        for name in ("a", "b")
        for seed in (0, 1)
    }
    assert len({tuple(arms) for arms in draws.values()}) == 4
    for arms in draws.values():
        assert 430 < arms.count(BASELINE) < 570


def test_a_block_is_a_multiple_of_its_length_in_utc():
    one = Switchback("e", 0, 1200.0, 60.0)
    assert one.block_at(0.0) == 0
    assert one.block_at(1199.9) == 0
    assert one.block_at(1200.0) == 1
    assert one.block_at(DAY) == 72


def test_a_washout_counts_for_nobody():
    one = Switchback("e", 0, 1200.0, 60.0)
    assert one.arm_at(2400.0) is one.arm_at(2459.9) is None
    assert one.arm_at(2460.0) == one.arm_in_force(2400.0) == one.arm_of(2)
    assert one.arm_of(2) in {BASELINE, TREATMENT}
    assert Switchback("e", 0, 1200.0, 0.0).arm_at(2400.0) is not None


def test_a_washout_that_fills_the_block():
    with pytest.raises(ValueError, match="shorter than a block"):
        Switchback("e", 0, 60.0, 60.0)
