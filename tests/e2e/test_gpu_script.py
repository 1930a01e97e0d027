"""The script that profiles on a GPU, rehearsed on the CPU so that it fails here first."""

from calibration.profile.rows_file import read_measurements
from gateway import profile
from tests.e2e import install
from tests.gpu import profile_gpu

QUICK = ("--grid", "small", "--blocks", "1", "--max-repeats", "2", "--min-cell-seconds", "0")


def test_a_tiny_model_is_made_served_measured_and_fitted(tmp_path):
    python = install.vllm_python()
    arguments = ("--out", str(tmp_path), "--vllm-python", str(python), "--models", "falcon-7b")
    profile_gpu.main([*arguments, "--tiny", "--no-weights", *QUICK, "--concurrency", "4"])
    rows = list(read_measurements(tmp_path / "rows.csv"))
    assert {row.model for row in rows} == {"falcon-7b"}
    assert {row.concurrency for row in rows} == {1, 4}
    assert {row.hardware for row in rows} == {"CPU"}
    fitted = profile.load_profile(tmp_path / "profile.json").get_model("falcon-7b")
    assert fitted.seconds != profile.load_profile(None).get_model("falcon-7b").seconds
    assert not (tmp_path / "weights-falcon-7b").exists()
