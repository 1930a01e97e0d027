"""Reading rows: nothing is dropped without a word, whatever the file looks like."""

import gzip
import hashlib

import numpy as np
import pytest

from calibration.tables.columns import BadInput, ColumnMapping
from calibration.tables.rows import read_rows

HEADER = "model,tokens_in,tokens_out,seconds,joules\n"


def written(tmp_path, text, name="rows.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reasons(rows):
    return {one.reason: one.count for one in rows.count_unusable()}


def test_good_rows_are_usable_and_the_file_is_named_by_its_hash(tmp_path):
    path = written(tmp_path, HEADER + "a,10,20,0.5,7\nb,11,21,0.6,8\n")
    seen = []
    rows = read_rows([path], ColumnMapping(), seen.append)
    assert rows.model_names == ["a", "b"]
    assert rows.select_usable("a")[
        ["tokens_in", "tokens_out", "seconds", "joules"]
    ].to_numpy().tolist() == [[10, 20, 0.5, 7]]
    assert rows.count_unusable() == []
    assert rows.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sum(seen) == path.stat().st_size


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,abc,20,0.5,7", "tokens_in is not a number"),
        ("a,,20,0.5,7", "tokens_in is missing"),
        ("a,0,20,0.5,7", "tokens_in is zero"),
        ("a,-1,20,0.5,7", "tokens_in is negative"),
        ("a,10,0,0.5,7", "tokens_out is zero"),
        ("a,10,-2,0.5,7", "tokens_out is negative"),
        ("a,10,20,NaN,7", "seconds is not a number"),
        ("a,10,20,,7", "seconds is missing"),
        ("a,10,20,0,7", "seconds is zero"),
        ("a,10,20,True,7", "seconds is not a number"),
        ("a,10,20,0.5,-7", "joules is negative"),
        ("a,10,20,0.5,nan", "joules is not a number"),
        ("a,10,20,0.5,inf", "joules is too large"),
        ("a,10,20,0.5,1e300", "joules is too large"),
        (",10,20,0.5,7", "model is missing"),
        ("a,10,20,0.5,7,8", "more fields than the header has"),
        ("a,10,20,0.5,7,8,9", "more fields than the header has"),
        ("a,10", "tokens_out is missing"),
    ],
)
def test_each_bad_row_is_counted_under_its_reason(tmp_path, row, reason):
    path = written(tmp_path, HEADER + "a,10,20,0.5,7\n" + row + "\n")
    rows = read_rows([path], ColumnMapping())
    assert reasons(rows) == {reason: 1}
    assert rows.count_unusable()[0].first == "rows.csv row 2"
    assert len(rows.select_usable("a")) == 1


def test_blank_joules_are_not_measured_rather_than_bad(tmp_path):
    rows = read_rows([written(tmp_path, HEADER + "a,10,20,0.5,\n")], ColumnMapping())
    assert rows.count_unusable() == []
    assert np.isnan(rows.select_usable("a")["joules"].iloc[0])


def test_gzip_a_byte_order_mark_semicolons_and_windows_lines_are_read(tmp_path):
    text = "\ufeff" + (HEADER + "a,10,20,0.5,7\n").replace(",", ";").replace("\n", "\r\n")
    path = written(tmp_path, gzip.compress(text.encode()), "rows.csv.gz")
    rows = read_rows([path], ColumnMapping())
    assert len(rows.select_usable("a")) == 1
    assert rows.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_scale_where_and_the_prompt_in_the_output(tmp_path):
    path = written(
        tmp_path,
        "gpu,in,out,s,mJ\nx,10,30,1,5000\ny,10,30,1,5000\nx,10,10,1,5000\nx,10,9,1,5000\n",
    )
    columns = ColumnMapping.from_options(
        col=["tokens_in=in", "tokens_out=out", "seconds=s", "joules=mJ"],
        scale=["joules=0.001"],
        where=["gpu=x"],
        model=["m"],
        output_includes_prompt=True,
    )
    rows = read_rows([path], columns)
    assert rows.select_usable("m")["tokens_out"].tolist() == [20, 0]
    assert rows.select_usable("m")["joules"].tolist() == [5, 5]
    assert rows.left_out == 1
    assert reasons(rows) == {"fewer tokens_out than tokens_in: they hold no prompt": 1}


def test_models_come_from_the_column_the_option_or_the_file(tmp_path):
    with_column = written(tmp_path, HEADER + "org/A,1,2,3,4\norg/B,1,2,3,4\n")
    rows = read_rows([with_column], ColumnMapping.from_options(model=["a=org/A"]))
    assert rows.model_names == ["a"]
    assert rows.left_out == 1
    plain = "tokens_in,tokens_out,seconds\n1,2,3\n"
    one = written(tmp_path, plain, "metrics_one.csv")
    two = written(tmp_path, plain, "metrics_two.csv.gz.csv")
    assert read_rows([one], ColumnMapping.from_options(model=["a"])).model_names == ["a"]
    by_name = read_rows([one, two], ColumnMapping())
    assert by_name.model_names == ["one", "two"]
    assert "has no model column" in by_name.notes[0]
    assert read_rows(
        [one], ColumnMapping.from_options(model=["a=metrics_one.csv", "b=x"][:1])
    ).model_names == ["a"]


def test_a_model_that_is_not_there_is_an_error_that_names_those_that_are(tmp_path):
    path = written(tmp_path, HEADER + "org/A,1,2,3,4\n")
    with pytest.raises(BadInput, match=r"no row of model 'b'; the rows have: org/A; .*--model b="):
        read_rows([path], ColumnMapping.from_options(model=["b"]))
    plain = written(tmp_path, "tokens_in,tokens_out,seconds\n1,2,3\n", "one.csv")
    with pytest.raises(BadInput, match="which of a, b is it"):
        read_rows([plain], ColumnMapping.from_options(model=["a=x.csv", "b=y.csv"]))


def test_prompts_are_counted_by_tiktoken_where_the_rows_have_no_count(tmp_path, counter):
    path = written(tmp_path, 'q,tokens_in,tokens_out,seconds\n"Hello, you there",9,2,3\n')
    rows = read_rows([path], ColumnMapping.from_options(col=["prompt=q"], model=["m"]))
    assert rows.select_usable("m")["tiktoken_in"].tolist() == [
        counter.count_tokens("Hello, you there")
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b"\n1,2\n", "no header line"),
        (HEADER.encode(), "no rows, only a header"),
        (b"\x1f\x8bnot gzip at all", "cannot be read"),
        (gzip.compress(HEADER.encode() + b"a,1,2,3,4\n" * 50, mtime=0)[:-12], "cannot be read"),
        (HEADER.encode() + b'a,1,2,3,"4\n', "cannot be read"),
        (b"\x00\x01\x02\x03", "no column"),
    ],
)
def test_files_that_are_no_rows_are_refused(tmp_path, content, match):
    with pytest.raises(BadInput, match=match):
        read_rows([written(tmp_path, content)], ColumnMapping())


def test_a_missing_file_and_a_where_that_nothing_meets_are_refused(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        read_rows([tmp_path / "none.csv"], ColumnMapping())
    path = written(tmp_path, HEADER + "a,1,2,3,4\n")
    with pytest.raises(BadInput, match="no row is left after --where model=z"):
        read_rows([path], ColumnMapping.from_options(where=["model=z"]))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_decimal_comma_is_named(tmp_path, separator):
    text = (HEADER + "a,10,20,0.5,7\n").replace(",", separator)
    text += separator.join(("a", "10", "20", "0,5", "1.207,5")) + "\r\n"
    rows = read_rows([written(tmp_path, "\ufeff" + text)], ColumnMapping())
    assert reasons(rows) == {"seconds has a decimal comma, where a point is read": 1}
    assert len(rows.select_usable("a")) == 1


def test_utf16_is_named(tmp_path):
    path = written(tmp_path, (HEADER + "a,10,20,0.5,7\n").encode("utf-16"))
    with pytest.raises(BadInput, match="UTF-16 text; save it as CSV UTF-8"):
        read_rows([path], ColumnMapping())
