"""A 9 x 9 grid of lengths, measured on a model without a KV cache: what `fit` makes of it.

The truth here is not one of the forms: each new token reads the whole text so far again, at a cost
that has a part per token read and a part per pair of tokens (attention).
"""

import numpy as np
import pandas as pd
import pytest

from calibration.fit import model as fit
from calibration.fit.cost import Loss
from gateway.scheduling.cost import RegressionForm
from tests.unit.calibration.fit.test_fit import as_rows

LENGTHS = 2 ** np.arange(3, 12)
REPEATS = 3


def cost(i, o, scale):
    """Sum over k < o of fixed + per token x (i+k) + per pair x (i+k)²."""
    read = o * i + o * (o - 1) / 2
    pairs = o * i**2 + i * o * (o - 1) + o * (o - 1) * (2 * o - 1) / 6
    return scale * (0.4 + 0.03 * o + 2.5e-4 * read + 8e-9 * pairs)


def grid(seed, noise=0.1):
    rng = np.random.default_rng(seed)
    i, o = (side.ravel().astype(float) for side in np.meshgrid(LENGTHS, LENGTHS))
    i, o = np.tile(i, REPEATS), np.tile(o, REPEATS)
    seconds, joules = (
        cost(i, o, scale) * rng.lognormal(-(noise**2) / 2, noise, len(i)) for scale in (1.0, 300.0)
    )
    cell = [f"{a:.0f}x{b:.0f}@1" for a, b in zip(i, o, strict=True)]
    columns = {"tokens_in": i, "tokens_out": o, "seconds": seconds, "joules": joules}
    return pd.DataFrame({**columns, "cell": cell, "running": 0.0})


@pytest.mark.parametrize("seed", range(5))
def test_the_defaults_are_close_everywhere_and_nowhere_below_zero(seed):
    found = fit.fit_model(as_rows(grid(seed)), "m")
    i, o = (side.ravel().astype(float) for side in np.meshgrid(LENGTHS, LENGTHS))
    for one, scale in ((found.seconds, 1.0), (found.joules, 300.0)):
        assert one.loss is Loss.RELATIVE
        assert one.form is RegressionForm.CONTEXT
        assert one.negative_reason is None
        predicted = np.array(
            [one.cost_function.evaluate_form(*at) for at in zip(i, o, strict=True)]
        )
        assert (predicted > 0.0).all()
        assert np.median(np.abs(predicted / cost(i, o, scale) - 1.0)) < 0.07
        assert one.errors.median_ape < 0.15  # the noise of single rows included


def test_plain_errors_and_the_published_form_fail_on_the_same_grid():
    rows = as_rows(grid(0))
    found = fit.fit_model(rows, "m", form=RegressionForm.INTERACTION, loss=Loss.ABSOLUTE)
    assert found.seconds.negative_reason is not None
    assert found.seconds.errors.median_ape > 0.15


def test_rows_of_another_tool_are_fitted_by_plain_errors_as_before():
    rows = as_rows(grid(0).drop(columns="cell"))
    assert fit.fit_model(rows, "m").seconds.loss is Loss.ABSOLUTE
    assert fit.fit_model(rows, "m", loss=Loss.RELATIVE).seconds.loss is Loss.RELATIVE
