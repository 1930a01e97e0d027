"""The leaderboard's points: what is read of them, and what is refused."""

import pytest

from calibration.library.__main__ import run_build
from calibration.library.build import build_library
from calibration.library.measured_series import read_series
from calibration.tables.columns import BadInput

HEAD = (
    "task,model_id,gpu_model,num_gpus,weight_precision,tensor_parallel,data_parallel,"
    "expert_parallel,avg_batch_size,energy_per_token_joules,median_itl_ms,avg_output_len\n"
)
ROW = "lm-arena-chat,Qwen/Qwen3-14B,H100,1,bfloat16,1,1,1,{batch},{joules},{ms},600\n"


def written(tmp_path, *rows, head=HEAD):
    path = tmp_path / "points.csv"
    path.write_text(head + "".join(rows))
    return path


def line(batches, **fields):
    """Rows on the line 0.1 + 5/B joules and 10 + 0.1 (B-1) ms."""
    for batch in batches:
        given = {"batch": batch, "joules": 0.1 + 5 / batch, "ms": 10 + 0.1 * (batch - 1), **fields}
        yield ROW.format(**given)


def test_a_series_becomes_an_entry(tmp_path):
    library, sums = build_library(read_series(written(tmp_path, *line((64, 8, 16, 32, 128)))))
    (entry,) = library.entries.values()
    assert list(library.entries) == list(sums) == ["Qwen3-14B@H100"]
    assert entry.joules[2:] == pytest.approx([0.1, 0.0, 5.0])
    assert entry.seconds[2:] == pytest.approx([0.01, 0.0, 0.0001])
    assert (entry.points, entry.batch, entry.answer_tokens) == (5, [8.0, 128.0], 600.0)
    assert entry.joules_per_token(7) == pytest.approx(0.1 + 5 / 8)
    assert entry.seconds_per_token(7) == pytest.approx(0.0107)
    assert library.leave_one_out.joules.mean == 0.0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([ROW.format(batch=8, joules="nan", ms=10)], "line 2: a batch below 1"),
        ([ROW.format(batch=0.5, joules=1, ms=10)], "line 2: a batch below 1"),
        ([ROW.format(batch=8, joules=1, ms="-")], "line 2: not numbers"),
        (["a,b\n"], "line 2: not numbers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, rows, said):
    with pytest.raises(BadInput, match=said):
        read_series(written(tmp_path, *rows))


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"no column .*median_itl_ms"):
        read_series(written(tmp_path, head=HEAD.replace("median_itl_ms", "itl")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("Qwen/Qwen3-14B", "Other/One"), "Other/One: parameters not known"),
        (("H100", "T4"), "T4: no limits known"),
    ],
)
def test_what_the_library_does_not_know_is_refused(tmp_path, change, said):
    rows = [row.replace(*change) for row in line((8, 16, 32, 64, 128))]
    with pytest.raises(BadInput, match=said):
        build_library(read_series(written(tmp_path, *rows)))


def test_two_series_of_one_name_are_refused(tmp_path):
    rows = list(line((8, 16, 32, 64, 128)))
    rows += [row.replace("bfloat16", "fp8") for row in rows]
    with pytest.raises(BadInput, match="two series are called Qwen3-14B@H100"):
        build_library(read_series(written(tmp_path, *rows)))


def test_too_little_is_refused_by_the_command(tmp_path, capsys):
    assert run_build(written(tmp_path, *line((8, 16))), tmp_path, write=True) == 2
    assert "no series of 5 points" in capsys.readouterr().err
    assert run_build(tmp_path / "none.csv", tmp_path, write=True) == 2
