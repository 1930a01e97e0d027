"""The guard of the data path can fail: its verdict, from numbers."""

import math

import pytest

from tests.bench import guard
from tests.bench.peers import GATEWAY, RELAY

UNARY, CHUNK = guard.LIMITS


def rounds(unary, chunk, relay=(100.0, 10.0)):
    """What a run has seen: the gateway's CPU of each round, the relay's the same in all."""
    return {
        GATEWAY: {UNARY: unary, CHUNK: chunk},
        RELAY.name: {UNARY: [relay[0]] * len(unary), CHUNK: [relay[1]] * len(chunk)},
    }


def find_over(**seen):
    return guard.find_dearer(guard.find_ratios(rounds(**seen)))


def test_it_passes_where_both_are_within_their_limits():
    assert find_over(unary=[200.0, 210.0, 190.0], chunk=[11.0, 12.0, 13.0]) == []


@pytest.mark.parametrize("figure", [UNARY, CHUNK])
def test_it_fails_where_one_is_just_over_and_names_it(figure):
    at_the_limit = dict(guard.LIMITS)
    assert guard.find_dearer(at_the_limit) == []
    assert guard.find_dearer(at_the_limit | {figure: guard.LIMITS[figure] + 0.01}) == [figure]
    assert guard.find_dearer(at_the_limit | {figure: math.nan}) == [figure]


def test_a_data_path_four_times_as_dear_as_was_measured_fails():
    assert find_over(unary=[800.0] * 3, chunk=[44.0] * 3) == [UNARY, CHUNK]


def test_one_disturbed_round_neither_fails_nor_saves_it():
    assert find_over(unary=[200.0, 9_000.0, 210.0], chunk=[11.0, 500.0, 12.0]) == []
    assert find_over(unary=[800.0, 200.0, 900.0], chunk=[40.0, 11.0, 50.0]) == [UNARY, CHUNK]


@pytest.mark.parametrize(("unary", "code"), [(200.0, 0), (800.0, 1)])
def test_the_command_ends_with_the_verdict(monkeypatch, capsys, unary, code):
    def measured(self, peers):
        assert peers == (RELAY,)
        self.seen = rounds([unary] * 3, [11.0] * 3)

    monkeypatch.setattr(guard.PeerBench, "run", measured)
    monkeypatch.setattr(guard.machine, "allow_many_files", lambda: None)
    assert guard.main([]) == code
    printed = capsys.readouterr().out
    limit = f"{guard.LIMITS[UNARY]:g}"
    assert f"{UNARY}: {unary / 100:.2f} of the bare relay's (limit {limit})" in printed
