"""Rows on disk: one line each, whole or cut off, read back as they were."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.profile.rows_file import (
    COLUMNS,
    HEADER,
    METHODS,
    MeasurementLog,
    MeasurementRow,
    RowsFileError,
    read_measurements,
)


def row(**changed):
    return MeasurementRow(
        **{
            "run": "abc",
            "cell": "32x16@1",
            "block": 0,
            "repeat": 3,
            "request_id": "profile-1",
            "model": "phi-3-mini",
            "backend": "http://127.0.0.1:8000",
            "tokens_in": 32,
            "tokens_out": 16,
            "cached_tokens": None,
            "tiktoken_in": 31,
            "seconds": 0.1 + 0.2,
            "ttft_seconds": None,
            "joules": None,
            "method": "",
            "running": 0,
            "waiting": None,
            "concurrency": 1,
            "hardware": "",
            "engine": "vllm 0.32.0",
            "at": "2026-11-20T06:49:04.302+00:00",
            **changed,
        }
    )


def write(path, *rows):
    with MeasurementLog.open(path) as log:
        for one in rows:
            log.append_row(one)


def test_the_columns_are_as_agreed():
    assert HEADER == (
        b"run,cell,block,repeat,request_id,model,backend,tokens_in,tokens_out,cached_tokens,"
        b"tiktoken_in,seconds,ttft_seconds,joules,method,running,waiting,concurrency,hardware,"
        b"engine,at\n"
    )


def test_rows_come_back_as_they_were_and_a_missing_joule_is_empty(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [row(), row(repeat=4, joules=0.0, method="exclusive", cached_tokens=0)]
    write(path, *rows)
    assert list(read_measurements(path)) == rows
    first, second = path.read_text().splitlines()[1:]
    assert ",0.30000000000000004,,,,0," in first
    assert ",0.0,exclusive," in second


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(hardware=texts, seconds=st.floats(0, 1e9), joules=st.none() | st.floats(0, 1e9))
def test_any_value_is_one_line(tmp_path_factory, hardware, seconds, joules):
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    write(path, row(hardware=hardware, seconds=seconds, joules=joules))
    assert path.read_bytes().count(b"\n") == 2
    (back,) = read_measurements(path)
    assert (back.seconds, back.joules) == (seconds, joules)
    assert back.hardware == " ".join(hardware.splitlines())


@pytest.mark.parametrize("keep", range(len(HEADER) + 1))
def test_a_header_that_was_cut_is_written_again(tmp_path, keep):
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER[:keep])
    write(path, row())
    assert list(read_measurements(path)) == [row()]


def test_a_half_row_is_cut_off_wherever_it_broke(tmp_path):
    path = tmp_path / "rows.csv"
    write(path, row(), row(repeat=4))
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for missing in range(1, last):
        path.write_bytes(whole[:-missing])
        with MeasurementLog.open(path) as log:
            assert log.cut_bytes == last - missing
            log.append_row(row(repeat=5))
        assert [one.repeat for one in read_measurements(path)] == [3, 5]
    path.write_bytes(whole)
    with MeasurementLog.open(path) as log:
        assert log.cut_bytes == 0
    assert path.read_bytes() == whole


def test_a_half_row_longer_than_one_read_is_cut_off(tmp_path):
    path = tmp_path / "rows.csv"
    write(path, row())
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    MeasurementLog.open(path).close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt_id,input_tokens\n1,2\n", "no column 'run'"),
        ("run;cell\n", "no column 'run'"),
        (",".join(sorted(COLUMNS)) + "\n", "another order"),
    ],
)
def test_somebody_elses_file_is_left_alone(tmp_path, content, words):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(RowsFileError, match=words):
        MeasurementLog.open(path)
    assert path.read_text() == content


def test_only_one_run_writes_at_a_time(tmp_path):
    path = tmp_path / "rows.csv"
    with MeasurementLog.open(path), pytest.raises(RowsFileError, match="another run"):
        MeasurementLog.open(path)
    MeasurementLog.open(path).close()


def test_gzip_is_read_and_not_appended_to(tmp_path):
    write(tmp_path / "rows.csv", row())
    path = tmp_path / "rows.csv.gz"
    packed = gzip.compress((tmp_path / "rows.csv").read_bytes())
    path.write_bytes(packed)
    assert list(read_measurements(path)) == [row()]
    with pytest.raises(RowsFileError, match=r"drop the \.gz"):
        MeasurementLog.open(path)
    path.write_bytes(packed[:-20])
    with pytest.raises(RowsFileError, match=r"rows\.csv\.gz:"):
        list(read_measurements(path))


@pytest.mark.parametrize(
    ("column", "text", "words"),
    [
        ("tokens_in", "many", "'many' is not a whole number"),
        ("tokens_in", "", "is not a whole number"),
        ("tokens_out", "1.5", "is not a whole number"),
        ("tokens_out", "٣", "is not a whole number"),
        ("seconds", "nan", "is not a finite number"),
        ("seconds", "", "is not a number"),
        ("joules", "-1", "of 0 or more"),
        ("joules", "1e999", "is not a finite number"),
        ("method", "guessed", "is not one of exclusive"),
    ],
)
def test_a_bad_field_is_named_by_line_and_column(tmp_path, column, text, words):
    path = tmp_path / "rows.csv"
    write(path, row(), row(repeat=4))
    lines = path.read_text().splitlines(keepends=True)
    fields = lines[2].rstrip("\n").split(",")
    fields[COLUMNS.index(column)] = text
    path.write_text("".join([*lines[:2], ",".join(fields) + "\n"]))
    with pytest.raises(RowsFileError, match=f"rows.csv:3: column {column}: .*{words}"):
        list(read_measurements(path))


def test_a_row_of_another_length_and_an_empty_file_are_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + b"a,b\n")
    with pytest.raises(RowsFileError, match=r"rows\.csv:2: 2 fields, expected 21"):
        list(read_measurements(path))
    path.write_bytes(b"")
    with pytest.raises(RowsFileError, match="is empty"):
        list(read_measurements(path))


def test_every_method_can_be_written(tmp_path):
    path = tmp_path / "rows.csv"
    write(path, *(row(repeat=k, method=method) for k, method in enumerate(METHODS)))
    assert tuple(one.method for one in read_measurements(path)) == METHODS


def test_a_failed_open_leaks_no_lock(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("other\n")
    with pytest.raises(RowsFileError):
        MeasurementLog.open(path)
    path.write_bytes(b"")
    MeasurementLog.open(path).close()
