"""A file that a run appends to is one run's at a time."""

import os

import pytest

from calibration.tables.file_lock import lock_file


def test_a_second_run_does_not_get_the_lock_until_the_first_has_closed_the_file(tmp_path):
    path = tmp_path / "rows.csv"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        lock_file(path, first, ValueError)
        with pytest.raises(ValueError, match=r"rows\.csv: another run is writing to it"):
            lock_file(path, second, ValueError)
        os.close(first)
        first = None
        lock_file(path, second, ValueError)
    finally:
        for one in (first, second):
            if one is not None:
                os.close(one)
