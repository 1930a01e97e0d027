"""`joulegate profile` on a simulated backend, `fit` on its rows, and `check` on the outcome."""

import pytest
from typer.testing import CliRunner

from calibration.cli import app
from calibration.profile.rows_file import read_measurements
from gateway import profile
from gateway.cli import app as gateway
from gateway.scheduling.cost import CostQuantity, RegressionForm
from tests.integration.farm import TRUTH, Farm


@pytest.fixture(scope="module")
def backend():
    farm = Farm()
    yield farm.add(speed=50.0)
    farm.close()


def call(application, *arguments):
    result = CliRunner().invoke(application, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_small_profile_with_load_becomes_a_profile_that_checks(backend, tmp_path):
    rows, out = tmp_path / "rows.csv", tmp_path / "profile.json"
    call(
        app, "profile", "--backend", f"phi-3-mini={backend.url}", "--out", rows,
        "--grid", "small", "--min-cell-seconds", "0", "--max-repeats", "5", "--concurrency", "4,8",
    )  # fmt: skip
    assert {row.concurrency for row in read_measurements(rows)} == {1, 4, 8}
    call(app, "fit", rows, "--out", out)
    model = profile.load_profile(out).get_model("phi-3-mini")
    for quantity, fitted, total in (
        (CostQuantity.SECONDS, model.seconds, TRUTH.total_seconds),
        (CostQuantity.JOULES, model.joules, TRUTH.total_joules),
    ):
        # Which of the two predicts better is for the noise of a few dozen requests to say.
        assert fitted.form in {RegressionForm.LOAD, RegressionForm.LOAD_CONTEXT}
        assert fitted.r2 > 0.96
        for tokens_in, tokens_out in ((256, 64), (1024, 256), (32, 256)):
            predicted = fitted.to_cost_function(quantity).evaluate_form(tokens_in, tokens_out)
            assert predicted == pytest.approx(total(tokens_in, tokens_out), rel=0.25)
    assert model.output is None
    call(gateway, "check", "--profile", out)
