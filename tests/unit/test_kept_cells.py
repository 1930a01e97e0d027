"""A fault matrix that goes on where it was stopped."""

from tests.faults.cells import CellResult, Fate
from tests.faults.kept_cells import KeptCells


def made(*fates):
    result = CellResult()
    for fate in fates:
        result.add(fate, f"said {fate}", 0.5)
    return result


def test_cells_are_there_for_the_next_run_of_the_same_gateway_and_size(tmp_path):
    file = tmp_path / "cells.jsonl"
    first = KeptCells(file, "gateway", 2)
    first.add("reset, all, unary", made(Fate.ANSWERED, Fate.TRUNCATED))
    first.add("proper, all, unary", made(Fate.ANSWERED, Fate.ANSWERED))
    assert KeptCells(file, "gateway", 2).results == first.results
    assert KeptCells(file, "gateway", 500).results == {}
    assert KeptCells(file, "another", 2).results == {}


def test_without_a_file_nothing_is_kept():
    kept = KeptCells(None, "gateway", 2)
    kept.add("reset, all, unary", made(Fate.HUNG))
    assert kept.results["reset, all, unary"].fates == {Fate.HUNG: 1}
