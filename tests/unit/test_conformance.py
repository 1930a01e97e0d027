"""What vLLM's own tests came to is read back as written; a stuck test holds up nobody."""

import pytest

from tests.conformance.outcomes import (
    ENDED,
    forget_files,
    forget_tests,
    is_done,
    read_outcomes,
    write_line,
)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "test_x.jsonl"


def write(log, *lines):
    for line in lines:
        write_line(log, *line)


def test_nothing_was_run(log):
    assert read_outcomes(log) == {}
    assert not is_done(log, "a.py")
    write_line(log, "a.py", ENDED)
    assert (is_done(log, "a.py"), is_done(log, "b.py")) == (True, False)
    assert read_outcomes(log) == {}


def test_an_outcome_has_its_reason(log):
    write(log, ["a::1", "begun"], ["a::1", "passed"], ["b::1", "begun"], ["b::1", "failed", "no"])
    assert read_outcomes(log) == {"a::1": "passed", "b::1": "failed: no"}
    assert read_outcomes(log, "a::") == {"a::1": "passed"}
    forget_files(log, ["a::"])
    assert read_outcomes(log) == {"b::1": "failed: no"}


def test_a_test_that_never_ends_is_begun_twice_and_no_more(log):
    write(log, ["a", "begun"])
    assert read_outcomes(log) == {}
    write(log, ["a", "begun"])
    assert read_outcomes(log) == {"a": "stopped: it did not end"}


def test_one_test_of_a_file_is_forgotten_and_then_left_to_run(log):
    write(log, ["a.py::1", "passed"], ["a.py::2", "failed", "no"], ["a.py", ENDED], ["b.py", ENDED])
    forget_tests(log, ["a.py::2"])
    assert read_outcomes(log) == {"a.py::1": "passed"}
    assert (is_done(log, "a.py"), is_done(log, "b.py")) == (False, True)
