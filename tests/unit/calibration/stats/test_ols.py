"""One regression: coefficients, robust intervals, and what is odd about the rows."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

from calibration.stats import cross_validation as folds
from calibration.stats import design, ols
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm


def rows(size=400, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "tokens_in": rng.integers(8, 2048, size),
            "tokens_out": rng.integers(8, 1024, size),
            "running": rng.integers(0, 16, size),
        }
    )


@pytest.mark.parametrize("form", list(RegressionForm))
@pytest.mark.parametrize("quantity", list(CostQuantity))
def test_the_design_is_the_form_that_the_scheduler_evaluates(form, quantity):
    frame = rows(50)
    b = (0.5, 0.01, 0.2, 1e-4, 0.3)[: form.term_count]
    cost = CostFunction(quantity, form, b)
    by_hand = [cost.evaluate_form(*map(int, row)) for row in frame.to_numpy()]
    assert design.build_design_matrix(form, quantity, frame) @ np.array(b) == pytest.approx(by_hand)
    assert len(design.list_terms(form, quantity)) == form.term_count


def test_it_agrees_with_statsmodels_on_the_plain_design():
    frame = rows()
    x = design.build_design_matrix(RegressionForm.INTERACTION, CostQuantity.SECONDS, frame)
    rng = np.random.default_rng(2)
    y = x @ [0.02, 1e-4, 0.03, 1e-6] * (1 + 0.1 * rng.standard_normal(len(x)))
    fitted = ols.fit_least_squares(x, y)
    plain = OLS(y, x).fit().get_robustcov_results("HC3", use_t=True)
    assert fitted.robust == "HC3"
    assert fitted.coefficients == pytest.approx(plain.params, rel=1e-8)
    assert fitted.standard_errors == pytest.approx(plain.bse, rel=1e-6)
    assert fitted.covariance == pytest.approx(plain.cov_params(), rel=1e-5, abs=1e-18)
    # 400 rows spread evenly: nearly as many degrees of freedom, nearly the same interval.
    assert fitted.high - fitted.low == pytest.approx(np.diff(plain.conf_int())[:, 0], rel=0.05)
    assert fitted.r2 == pytest.approx(plain.rsquared)
    assert fitted.rmse == pytest.approx(float(np.sqrt(np.mean(plain.resid**2))))


def test_an_interval_that_rests_on_few_rows_is_wide():
    x = np.column_stack([np.ones(100), np.r_[np.zeros(98), 1.0, 1.0]])
    y = 1.0 + 0.1 * np.random.default_rng(0).standard_normal(100)
    fitted = ols.fit_least_squares(x, y)
    assert fitted.degrees_of_freedom == pytest.approx([95.0, 2.0], abs=3.0)
    assert fitted.high[1] - fitted.low[1] > 2 * 3.0 * fitted.standard_errors[1]


def test_designs_that_cannot_be_told_apart_are_singular():
    i = np.arange(20.0)
    with pytest.raises(ols.SingularDesignError, match="cannot be told apart"):
        ols.fit_least_squares(np.column_stack([np.ones(20), i, 2 * i + 3]), i)
    with pytest.raises(ols.SingularDesignError, match="zero in every row"):
        ols.fit_least_squares(np.column_stack([np.ones(20), i, 0 * i]), i)
    with pytest.raises(ols.SingularDesignError, match="3 rows for 3"):
        ols.fit_least_squares(np.eye(3), np.ones(3))


def test_a_row_far_from_its_like_and_a_row_of_full_leverage_are_seen():
    x = design.build_design_matrix(RegressionForm.ADDITIVE, CostQuantity.SECONDS, rows())
    rng = np.random.default_rng(3)
    y = x @ [1.0, 0.01, 0.1] * (1 + 0.02 * rng.standard_normal(len(x)))
    assert ols.fit_least_squares(x, y).diagnostics.outlier_rows == 0
    y[7] *= 3.0
    odd = ols.fit_least_squares(x, y).diagnostics
    assert (odd.outlier_rows, odd.worst_row) == (1, 7)
    lone = np.zeros((len(x), 1))
    lone[9] = 1.0
    fitted = ols.fit_least_squares(np.hstack([x, lone]), y)
    assert fitted.robust == "HC1"
    assert fitted.diagnostics.leverage_max == pytest.approx(1.0)
    assert fitted.diagnostics.highest_leverage_row == 9


def test_a_missing_term_shows_as_fifths_that_are_off():
    frame = rows(2000)
    full = design.build_design_matrix(RegressionForm.INTERACTION, CostQuantity.SECONDS, frame)
    y = full @ [0.1, 1e-4, 1e-3, 1e-4]
    fitted = ols.fit_least_squares(full[:, :3], y)
    assert max(map(abs, ols.compute_binned_bias(y - fitted.residuals, y))) > 0.1
    assert ols.compute_binned_bias(y, y) == [0.0] * 5


def test_cross_validation_is_the_same_every_time_and_worse_than_the_fit():
    x = design.build_design_matrix(RegressionForm.ADDITIVE, CostQuantity.SECONDS, rows(60))
    rng = np.random.default_rng(4)
    y = x @ [1.0, 0.01, 0.1] + rng.standard_normal(len(x))
    first, second = folds.cross_validate(x, y, 5), folds.cross_validate(x, y, 5)
    assert first == second
    assert first.rmse > ols.fit_least_squares(x, y).rmse
    assert 0.0 < first.median_ape < first.p90_ape


def test_leave_one_out_is_what_the_hat_matrix_says():
    x = design.build_design_matrix(RegressionForm.ADDITIVE, CostQuantity.SECONDS, rows(40))
    y = x @ [1.0, 0.01, 0.1] + np.random.default_rng(5).standard_normal(40)
    fitted = ols.fit_least_squares(x, y)
    leverage = np.diag(x @ np.linalg.inv(x.T @ x) @ x.T)
    expected = np.sqrt(np.mean((fitted.residuals / (1 - leverage)) ** 2))
    assert folds.cross_validate(x, y, 40).rmse == pytest.approx(expected, rel=1e-6)


def test_an_exact_form_is_not_beaten_by_rounding():
    frame = rows()
    simple = design.build_design_matrix(RegressionForm.ADDITIVE, CostQuantity.SECONDS, frame)
    rich = design.build_design_matrix(RegressionForm.INTERACTION, CostQuantity.SECONDS, frame)
    y = simple @ [1.0, 0.01, 0.1]
    errors = folds.cross_validate(simple, y, 5), folds.cross_validate(rich, y, 5)
    assert not folds.improves_rmse(*errors)
    assert not folds.improves_rmse(*reversed(errors))


def test_a_grid_without_noise_that_lacks_a_term_has_no_stray_rows():
    cells = [(i, o) for i in (32, 512, 2048, 4096) for o in (16, 128, 512, 1024)]
    frame = pd.DataFrame(cells * 30, columns=["tokens_in", "tokens_out"])
    y = design.build_design_matrix(RegressionForm.INTERACTION, CostQuantity.SECONDS, frame) @ [
        0.1,
        1e-3,
        0.03,
        2e-5,
    ]
    x = design.build_design_matrix(RegressionForm.ADDITIVE, CostQuantity.SECONDS, frame)
    odd = ols.fit_least_squares(x, y).diagnostics
    assert (odd.outlier_rows, odd.worst_sd < 3.0) == (0, True)
    y[11] *= 4.0
    odd = ols.fit_least_squares(x, y).diagnostics
    assert odd.outlier_rows == 1
    assert 6.0 < odd.worst_sd < 8.0
