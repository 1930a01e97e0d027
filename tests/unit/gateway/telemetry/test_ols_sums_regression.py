"""A regression out of the sums is the regression out of the rows, after a million of them.

Everything goes the way it goes in service: `add`, the page's text, floats. The rows keep load, so
that the terms are as alike as they are in practice. The solver here is the least that shows it.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from statsmodels.regression.linear_model import WLS

from calibration.recalibrate.faults import format_term, parse_powers
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow

pytestmark = pytest.mark.slow


NAME = ("phi-3-mini", "phi-3-mini")
ROWS = 1_000_000
WINDOW = 200
FORMS = {
    "additive": ("", "u", "o"),
    "interaction": ("", "u", "o", "io"),
    "load": ("", "u", "o", "io", "z"),
}
LIVE = {
    "seconds": CostFunction(
        CostQuantity.SECONDS, RegressionForm.LOAD, (0.04, 1.1e-5, 0.011, 2e-7, 1.8e-4)
    ),
    "joules": CostFunction(
        CostQuantity.JOULES, RegressionForm.LOAD, (3.3, 0.0041, 0.19, 1e-5, 2.6)
    ),
}


class Rows(NamedTuple):
    tokens_in: np.ndarray
    tokens_out: np.ndarray
    running: np.ndarray
    microseconds: np.ndarray
    microjoules: np.ndarray

    def cost(self, quantity):
        return (self.microseconds if quantity == "seconds" else self.microjoules) / 1e6

    def columns(self, form, quantity):
        i, o, r = (column.astype(float) for column in self[:3])
        z = o * r if quantity == "seconds" else o / (1 + r)
        by_name = {"": np.ones_like(i), "u": i, "o": o, "io": i * o, "z": z}
        return np.column_stack([by_name[name] for name in FORMS[form]])

    def predicted(self, quantity):
        """The live prediction, and what it counts as in the weight."""
        i, o, r = (column.astype(float) for column in self[:3])
        b = LIVE[quantity].coefficients
        z = o * r if quantity == "seconds" else o / (1 + r)
        p = b[0] + b[1] * i + b[2] * o + b[3] * i * o + b[4] * z
        return p, np.maximum(p, LIVE[quantity].predict_cost(100, 100) / 10)

    def last(self, count):
        return Rows(*(column[-count:] for column in self))


def page(sums):
    registry = CollectorRegistry()
    registry.register(SumsCollector(sums.snapshot_sums))
    (family,) = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (s.labels["basis"], s.labels["quantity"], s.labels["term"]): s.value for s in family.samples
    }


@pytest.fixture(scope="module")
def million():
    """The rows, and what the page said of them all and before the last window."""
    rng = np.random.default_rng(20)
    i = rng.integers(8, 3_000, ROWS)
    o = np.clip(rng.lognormal(5, 0.8, ROWS), 1, 2_000).astype(np.int64)
    r = rng.poisson(rng.choice([0, 3, 16, 48], ROWS))
    seconds = 0.05 + 1e-5 * i + 0.01 * o + 2e-7 * i * o + 2e-4 * o * r
    joules = 3 + 0.004 * i + 0.2 * o + 1e-5 * i * o + 2.5 * o / (1 + r)
    noise = rng.lognormal(0, 0.1, (2, ROWS))
    micro = np.rint(np.stack([seconds, joules]) * noise * 1e6).astype(np.int64)
    rows = Rows(i, o, r, *micro)
    sums = OlsSums([NAME])
    before = {}
    for k, (i, o, r, us, uj) in enumerate(zip(*(column.tolist() for column in rows), strict=True)):
        if k == ROWS - WINDOW:
            before = page(sums)
        said = (WeighedPrediction.of(cost, i, o, r, 0) for cost in LIVE.values())
        sums.add_row(*NAME, SumsRow(i, o, 0, r, us, uj, None, False, *said, r))
    return rows, before, page(sums)


def solve(form, block):
    """Coefficients and classical standard errors out of one block; columns at unit length."""
    names = FORMS[form]
    pairs = [[format_term(W + parse_powers(a) + parse_powers(b)) for b in names] for a in names]
    gram = np.array([[block[term] for term in row] for row in pairs])
    with_cost = np.array([block[format_term(W + Y + parse_powers(name))] for name in names])
    scale = 1 / np.sqrt(np.diag(gram))
    inverse = np.linalg.inv(gram * np.outer(scale, scale))
    scaled = inverse @ (with_cost * scale)
    residual = block["wy2"] - scaled @ (with_cost * scale)
    variance = residual / (block["n"] - len(names))
    return scaled * scale, np.sqrt(variance * np.diag(inverse)) * scale


W, Y = Counter({"w": 1}), Counter({"y": 1})


def farthest(form, quantity, shown, rows):
    """The largest relative difference to statsmodels on the rows."""
    block = {term: v for (b, q, term), v in shown.items() if (b, q) == ("costs", quantity)}
    assert block["n"] == len(rows.tokens_in)
    coefficients, errors = solve(form, block)
    predicted, weighed = rows.predicted(quantity)
    y = np.clip(rows.cost(quantity), predicted / 5, 5 * predicted)
    fitted = WLS(y, rows.columns(form, quantity), weights=weighed**-2.0).fit()
    return max(
        np.max(np.abs(coefficients / fitted.params - 1)),
        np.max(np.abs(errors / fitted.bse - 1)),
    )


every_form = pytest.mark.parametrize("form", list(FORMS))
every_cost = pytest.mark.parametrize("quantity", ["seconds", "joules"])


@every_form
@every_cost
def test_a_million_requests(million, form, quantity):
    rows, _, shown = million
    far = farthest(form, quantity, shown, rows)
    print(f"{form} {quantity}: {far:.1e}")
    assert far < 1e-9


@every_form
@every_cost
def test_the_last_two_hundred_of_a_million(million, form, quantity):
    rows, before, shown = million
    window = {name: value - before[name] for name, value in shown.items()}
    far = farthest(form, quantity, window, rows.last(WINDOW))
    print(f"{form} {quantity}: {far:.1e}")
    assert far < 1e-8
