"""The simulated engine's prefix cache: whole blocks, from the beginning, bounded."""

from backends.simulator.prefix_cache import SimulatedPrefixCache


def test_whole_blocks_from_the_beginning_are_found():
    cache = SimulatedPrefixCache(10_000)
    first = range(40)
    assert cache.add_tokens(first) == 0
    assert cache.add_tokens(first) == 32
    assert cache.add_tokens([*first, *range(100, 140)]) == 32
    assert cache.add_tokens([*range(16), *range(200, 216), *range(32, 48)]) == 16
    assert cache.add_tokens([7, *range(40)]) == 0


def test_the_answer_is_there_for_the_next_turn():
    cache = SimulatedPrefixCache(10_000)
    cache.add_tokens(range(40), range(40, 100))
    assert cache.add_tokens(range(110)) == 96


def test_the_blocks_least_used_leave_first():
    cache = SimulatedPrefixCache(64)
    cache.add_tokens(range(32))
    cache.add_tokens(range(100, 132))
    assert cache.add_tokens(range(32)) == 32
    cache.add_tokens(range(200, 232))
    assert cache.add_tokens(range(32)) == 32
    assert cache.add_tokens(range(100, 132)) == 0
