"""The bench of bursts counts who waited for another's end."""

from tests.bench.burst import BurstStream, count_waiting


def test_only_those_whose_first_token_came_after_an_end_have_waited():
    assert count_waiting([]) == 0
    assert count_waiting([BurstStream(0.1, 2.0), BurstStream(1.9, 3.0)]) == 0
    assert count_waiting([BurstStream(0.1, 2.0), BurstStream(2.1, 4.0), BurstStream(9, 9.5)]) == 2
