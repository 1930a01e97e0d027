"""The published figures, from sums and counts of the rows that are shipped with the tests.

`test_published.py` does the same from the rows themselves, where they are at hand.
"""

import json
from fractions import Fraction
from math import log1p, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from calibration.fit.published import reproduce_figures
from calibration.tables.rows import MeasuredRows

GIVEN = json.loads((Path(__file__).parent / "published_sums.json").read_text(encoding="utf-8"))
MODELS = {
    "phi-3-mini-4k-instruct": "phi-3-mini",
    "mistral-7B-instruct-v0.2": "mistral-7b",
    "falcon-7b-instruct": "falcon-7b",
}
OURS = {"i": "tokens_in", "o": "tokens_out", "seconds": "seconds", "joules": "joules"}
RARE = 8

every_model = pytest.mark.parametrize("model", MODELS)


def sums(model, kind="all"):
    return {name: Fraction(value) for name, value in GIVEN["models"][model][kind].items()}


def covariances(of):
    """Return the exact covariance (population) of each two columns."""
    found = {}
    for a in OURS:
        for b in OURS:
            product = of.get(f"{a}*{b}", of.get(f"{b}*{a}"))
            found[a, b] = product / of["n"] - of[a] * of[b] / of["n"] ** 2
    return found


def rows_with_moments(model, of):
    """Return RARE**4 rows whose means and covariances are those of the sums."""
    covariance = np.array([[float(covariances(of)[a, b]) for b in OURS] for a in OURS])
    means = np.array([float(of[name] / of["n"]) for name in OURS])
    # Rare and high, else a little low, so that nothing falls below 0; mean 0, variance 1.
    once = np.array([np.sqrt(RARE - 1.0), *[-1.0 / np.sqrt(RARE - 1.0)] * (RARE - 1)])
    corners = np.stack(np.meshgrid(*[once] * len(OURS)), axis=-1).reshape(-1, len(OURS))
    values = means + corners @ np.linalg.cholesky(covariance).T
    frame = pd.DataFrame(values, columns=list(OURS.values()))
    return frame.assign(model=model, reason="", cell="")


@pytest.fixture(scope="module")
def figures():
    """What calibration.fit.published makes of rows with the published moments."""
    frames = [rows_with_moments(model, sums(model)) for model in GIVEN["models"]]
    return reproduce_figures(MeasuredRows(pd.concat(frames, ignore_index=True), []), {})


def test_how_many_rows_there_were():
    assert [int(sums(model)["n"]) for model in MODELS] == [49071, 48521, 51234]


@every_model
def test_z_scored_coefficients(figures, model):
    found = next(row for row in figures.regressions if row["model"] == model)
    published = GIVEN["regressions"][model]
    assert published.keys() == found.keys() - {"model"}
    for name, value in published.items():
        assert found[name] == pytest.approx(float(value), abs=1e-9), name


@every_model
def test_normalisation_statistics(figures, model):
    of, published = sums(model), GIVEN["normalization_stats"][model]
    found = figures.stats[model]
    for name in ("input_tokens", "output_tokens"):
        assert found[name] == pytest.approx(published[name], rel=1e-10)
    for theirs, ours in (("runtime", "seconds"), ("energy", "joules")):
        assert found[theirs]["raw_mean"] == pytest.approx(published[theirs]["raw_mean"], rel=1e-10)
        assert found[theirs]["raw_std"] == pytest.approx(published[theirs]["raw_std"], rel=1e-10)
        for end in ("min", "max"):
            logarithm = log1p(float(of[f"{end} {ours}"]))
            assert logarithm == pytest.approx(published[theirs][f"log_{end}"], rel=1e-12)


def test_pooled_output_length():
    each = [sums(model) for model in MODELS]
    n, i, o, ii, io, oo = (
        sum(of[name] for of in each) for name in ("n", "i", "o", "i*i", "i*o", "o*o")
    )
    slope = (n * io - i * o) / (n * ii - i * i)
    r2 = slope**2 * (n * ii - i * i) / (n * oo - o * o)
    assert float(slope) == pytest.approx(1.0281596946, abs=5e-11)
    # Published as 44.1201746541; exact rational arithmetic gives …6501.
    assert float((o - slope * i) / n) == pytest.approx(44.12017465006395, rel=1e-14)
    assert float(r2) == pytest.approx(0.1262, abs=5e-5)


@every_model
@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_the_shipped_profile_is_the_exact_fit_for_new_tokens(shipped, model, quantity):
    of = sums(model, "new_tokens")
    cov = covariances(of)
    determinant = cov["i", "i"] * cov["o", "o"] - cov["i", "o"] ** 2
    y_in, y_out = cov["i", quantity], cov["o", quantity]
    b1 = (y_in * cov["o", "o"] - y_out * cov["i", "o"]) / determinant
    b2 = (y_out * cov["i", "i"] - y_in * cov["i", "o"]) / determinant
    b0 = (of[quantity] - b1 * of["i"] - b2 * of["o"]) / of["n"]
    cost = getattr(shipped.models[MODELS[model]], quantity)
    assert cost.coefficients == pytest.approx([float(b) for b in (b0, b1, b2)], rel=1e-9)
    left = cov[quantity, quantity] - b1 * y_in - b2 * y_out
    assert cost.rmse == pytest.approx(sqrt(left), rel=1e-9)
