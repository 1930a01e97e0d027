"""A CSV file in pieces: every row arrives once, in order, whatever its fields are."""

import csv
import gzip
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.tables import csv_file
from calibration.tables.columns import BadInput
from calibration.tables.csv_file import CsvFile

HEADER = ["a", "b", "c"]


def read_values(path, texts=frozenset(HEADER)):
    with CsvFile(path, lambda _: None) as file:
        return [
            (row["_row"], *(None if row[name] != row[name] else row[name] for name in columns))
            for chunk in file.read_chunks(set(HEADER), set(texts))
            for columns in [(*HEADER, "_extra")]
            for row in chunk.to_dict("records")
        ]


def write_file(tmp_path, body, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(b"a,b,c\n" + body)
    return path


FIELD = st.text(st.sampled_from('x1é, "\n'), max_size=4)
ROW = st.one_of(
    st.lists(FIELD, min_size=3, max_size=3),
    st.lists(FIELD, min_size=1, max_size=6).filter(lambda row: "".join(row).strip()),
)


@given(
    rows=st.lists(ROW, max_size=40), zipped=st.booleans(), newline=st.sampled_from(["\n", "\r\n"])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_rows_of_any_shape_arrive_in_order_over_many_blocks(tmp_path, rows, zipped, newline):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows(rows)
    body = ("a,b,c\n" + text.getvalue()).encode()
    path = tmp_path / "rows.csv"
    path.write_bytes(gzip.compress(body) if zipped else body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_file, "_BLOCK_BYTES", 160)
        found = read_values(path)
    expected = [
        (at, *(field or None for field in (*row, "", "")[:3]), ",".join(row[3:]) or None)
        for at, row in enumerate(rows, 1)
    ]
    assert found == expected


def test_blank_lines_are_no_rows_and_a_trailing_comma_is_no_surplus(tmp_path):
    path = write_file(tmp_path, b"\n1,2,3,\n   \n4,5\n\n6,7,8,9,10\n11,12,13")
    assert read_values(path) == [
        (1, "1", "2", "3", None),
        (2, "4", "5", None, None),
        (3, "6", "7", "8", "9,10"),
        (4, "11", "12", "13", None),
    ]


def test_a_column_is_numbers_where_all_of_a_piece_are(tmp_path):
    path = write_file(tmp_path, b"1,2,nan\n1e3,x,4\n,,\n")
    assert read_values(path, {"b"}) == [
        (1, 1.0, "2", "nan", None),
        (2, 1000.0, "x", "4", None),
        (3, None, None, None, None),
    ]


def test_bytes_that_are_not_utf8_are_replaced_also_where_a_row_is_too_long(tmp_path):
    path = write_file(tmp_path, b"\xff,2,3\n\xc3\xa9,\xfe,3,4\n")
    assert read_values(path) == [(1, "\ufffd", "2", "3", None), (2, "é", "\ufffd", "3", "4")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'1,2,"3\n4,5,6\n', "a quote is not closed"),
        (b'1,2,"' + b"x" * 400 + b"\n", "a quote is not closed, or a row is longer than"),
        (b'1,2,3,"' + b"x" * 200_000 + b'"\n', "field larger than field limit"),
    ],
    ids=["quote", "long row", "long surplus"],
)
def test_what_is_no_row_is_said(tmp_path, monkeypatch, body, words):
    if len(body) < 1000:
        monkeypatch.setattr(csv_file, "_BLOCK_BYTES", 160)
    with pytest.raises(BadInput, match=f"rows.csv: cannot be read: {words}"):
        read_values(write_file(tmp_path, body))
