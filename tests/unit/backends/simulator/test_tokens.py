"""The simulator's tokens: how texts of any length are counted."""

import pytest

from backends.simulator import tokens


def test_counting_is_bounded_and_close_to_the_whole():
    text = "Some words, and then some more. " * 40_000
    exact = len(tokens.encode_text(text))
    assert tokens.count_pieces(text) == pytest.approx(exact, rel=0.05)
    assert "".join(tokens.split_text(text[:5000])) == text[:5000]
    assert tokens.decode_ids([0, -5, 2**60]) == "\N{REPLACEMENT CHARACTER}" * 3
