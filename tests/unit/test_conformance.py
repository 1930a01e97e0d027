"""What vLLM's own tests came to is read back as written; a stuck test holds up nobody."""

import json

import pytest

from tests.conformance.outcomes import is_done, mark_done, read_outcomes


@pytest.fixture
def log(tmp_path):
    return tmp_path / "test_x.jsonl"


def write(log, *lines):
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def test_nothing_was_run(log):
    assert read_outcomes(log) == {}
    assert not is_done(log)
    mark_done(log)
    assert is_done(log)


def test_an_outcome_has_its_reason(log):
    write(log, ["a", "begun", ""], ["a", "passed", ""], ["b", "begun", ""], ["b", "failed", "no"])
    assert read_outcomes(log) == {"a": "passed", "b": "failed: no"}


def test_a_test_that_never_ends_is_begun_twice_and_no_more(log):
    write(log, ["a", "begun", ""])
    assert read_outcomes(log) == {}
    write(log, ["a", "begun", ""])
    assert read_outcomes(log) == {"a": "stopped: it did not end"}
