import pytest

from calibration.tables.predictions import write_predictions

TEXT = "a_p50,a_p90\r\n1.0,2.0\r\n"


@pytest.mark.parametrize("to_file", [True, False])
def test_predictions_go_to_the_file_else_to_stdout(to_file, tmp_path, capfd):
    out = tmp_path / "p.csv" if to_file else None
    write_predictions(out, ["a_p50", "a_p90"], [["1.0", "2.0"]])
    shown = capfd.readouterr().out
    assert (out.read_bytes().decode() if out else shown) == TEXT
    assert bool(shown) != to_file
