"""Rows told apart by the requests at a time: each in one class, each class with its own mark."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.plots.concurrency import NOT_TOLD, split_by_concurrency


def labels(*running):
    return [one.label for one in split_by_concurrency(np.array(running, dtype=float))]


def test_the_classes():
    assert labels(0, 0) == ["1 at a time"]
    assert labels(0, 1, 3, 4, 15, 16, 900) == ["1 at a time", "2 to 4", "5 to 16", "17 and more"]
    assert labels(np.nan) == [NOT_TOLD]
    assert labels(0.4, np.nan) == ["2 to 4", NOT_TOLD]


@given(st.lists(st.one_of(st.floats(0, 1e6), st.just(float("nan"))), min_size=1))
def test_every_row_is_in_one_class(running):
    found = split_by_concurrency(np.array(running))
    assert sum(one.rows.astype(int) for one in found).tolist() == [1] * len(running)
    assert all(one.rows.any() for one in found)


def test_no_two_classes_look_the_same():
    found = split_by_concurrency(np.array([0.0, 2.0, 7.0, 99.0, np.nan]))
    assert len({one.marker for one in found}) == len(found)
    tints = [one.tint("#0072b2") for one in found[:4]]
    assert len(set(tints)) == 4
    light = [sum(int(tint[at : at + 2], 16) for at in (1, 3, 5)) for tint in tints]
    assert light == sorted(light, reverse=True)
    assert found[2].tint("#0072b2") == "#0072b2"


@pytest.mark.parametrize("colour", ["#0072b2", "#e69f00", "#000000", "#ffffff"])
def test_a_tint_is_a_colour(colour):
    for one in split_by_concurrency(np.array([0.0, 2.0, 7.0, 99.0])):
        assert len(one.tint(colour)) == 7
