"""Which column of somebody's file holds what, and what is said where that is unclear."""

import pytest

from calibration.tables.columns import BadInput, ColumnMapping

PUBLISHED = ["prompt_id", "input_tokens", "output_tokens", "runtime_seconds", "energy_joules"]
OURS = ["tokens_in", "tokens_out", "seconds", "joules", "model"]


def test_our_own_names_need_no_option():
    assert ColumnMapping().match_header(OURS, "rows.csv") == {name: name for name in OURS}


def test_col_maps_a_name_and_leaves_the_rest():
    columns = ColumnMapping.from_options(col=["seconds=took"])
    chosen = columns.match_header(["tokens_in", "tokens_out", "took"], "rows.csv")
    assert chosen["seconds"] == "took"
    assert "joules" not in chosen


def test_missing_columns_are_named_with_what_there_is_and_the_option_that_helps():
    with pytest.raises(BadInput) as caught:
        ColumnMapping().match_header(PUBLISHED, "rows.csv")
    message = str(caught.value)
    assert "it has: prompt_id, input_tokens" in message
    assert "--col tokens_in=input_tokens --col tokens_out=output_tokens" in message
    assert "--col seconds=runtime_seconds" in message


def test_a_mapped_column_that_is_not_there_is_an_error_even_if_optional():
    with pytest.raises(BadInput, match="no column 'watts'"):
        ColumnMapping.from_options(col=["joules=watts"]).match_header(OURS, "rows.csv")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"col": ["tokens_in"]}, "--col tokens_in: want LEFT=RIGHT"),
        ({"col": ["token_in=a"]}, "'token_in' is none of tokens_in"),
        ({"col": ["tokens_in="]}, "nothing after"),
        ({"scale": ["joules=0"]}, "want a positive number"),
        ({"scale": ["joules=inf"]}, "want a positive number"),
        ({"scale": ["model=2"]}, "'model' is none of"),
        ({"where": ["=x"]}, "--where =x"),
        ({"model": ["=x"]}, "--model =x"),
    ],
)
def test_options_that_cannot_be_read_are_named(options, match):
    with pytest.raises(BadInput, match=match):
        ColumnMapping.from_options(**options)


def test_an_unknown_where_column_and_a_doubled_one_are_errors():
    with pytest.raises(BadInput, match="--where gpu=…: no such column"):
        ColumnMapping.from_options(where=["gpu=H200"]).match_header(OURS, "rows.csv")
    with pytest.raises(BadInput, match="two columns are named seconds"):
        ColumnMapping().match_header([*OURS, "seconds"], "rows.csv")
