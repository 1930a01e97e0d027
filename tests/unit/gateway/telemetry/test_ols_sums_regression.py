"""A regression out of the sums is the regression out of the rows, after a million of them.

Everything goes the way it goes in service: `add`, the page's text, floats. The rows keep load, so
that the terms are as alike as they are in practice. The solver here is the least that shows it.
"""

from typing import NamedTuple

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from statsmodels.regression.linear_model import OLS

from gateway.telemetry.ols_sums import OlsSums, SumsCollector

pytestmark = pytest.mark.slow


NAME = ("phi-3-mini", "phi-3-mini")
ROWS = 1_000_000
WINDOW = 200
FORMS = {
    "additive": ("n", "i", "o"),
    "interaction": ("n", "i", "o", "io"),
    "load": ("n", "i", "o", "io", "z"),
}
# The sum of each pair's product, by its term.
PAIRS = {
    ("n", "n"): "n", ("n", "i"): "i", ("n", "o"): "o", ("n", "io"): "io", ("n", "z"): "z",
    ("i", "i"): "i2", ("i", "o"): "io", ("i", "io"): "i2o", ("i", "z"): "iz",
    ("o", "o"): "o2", ("o", "io"): "io2", ("o", "z"): "oz",
    ("io", "io"): "i2o2", ("io", "z"): "ioz", ("z", "z"): "z2",
}  # fmt: skip
WITH_COST = {"n": "y", "i": "iy", "o": "oy", "io": "ioy", "z": "zy"}


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
        by_name = {"n": np.ones_like(i), "i": i, "o": o, "io": i * o, "z": z}
        return np.column_stack([by_name[name] for name in FORMS[form]])

    def last(self, count):
        return Rows(*(column[-count:] for column in self))


def page(sums):
    registry = CollectorRegistry()
    registry.register(SumsCollector(sums.snapshot))
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
        sums.add_row(
            *NAME,
            tokens_in=i,
            tokens_out=o,
            running=r,
            microseconds=us,
            microjoules=uj,
            estimated_tokens=None,
            truncated=False,
        )
    return rows, before, page(sums)


def solve(form, block):
    """Coefficients and classical standard errors out of one block; columns at unit length."""
    names = FORMS[form]
    gram = np.array([[block[PAIRS.get((a, b)) or PAIRS[b, a]] for b in names] for a in names])
    with_cost = np.array([block[WITH_COST[name]] for name in names])
    scale = 1 / np.sqrt(np.diag(gram))
    inverse = np.linalg.inv(gram * np.outer(scale, scale))
    scaled = inverse @ (with_cost * scale)
    residual = block["y2"] - scaled @ (with_cost * scale)
    variance = residual / (block["n"] - len(names))
    return scaled * scale, np.sqrt(variance * np.diag(inverse)) * scale


def farthest(form, basis, quantity, shown, rows):
    """The largest relative difference to statsmodels on the rows."""
    block = {term: v for (b, q, term), v in shown.items() if (b, q) == (basis, quantity)}
    assert block["n"] == len(rows.tokens_in)
    coefficients, errors = solve(form, block)
    fitted = OLS(rows.cost(quantity), rows.columns(form, quantity)).fit()
    return max(
        np.max(np.abs(coefficients / fitted.params - 1)),
        np.max(np.abs(errors / fitted.bse - 1)),
    )


every_form = pytest.mark.parametrize(
    ("form", "basis"),
    [("additive", "tokens"), ("interaction", "tokens"), ("interaction", "load"), ("load", "load")],
)
every_cost = pytest.mark.parametrize("quantity", ["seconds", "joules"])


@every_form
@every_cost
def test_a_million_requests(million, form, basis, quantity):
    rows, _, shown = million
    far = farthest(form, basis, quantity, shown, rows)
    print(f"{form} {quantity}: {far:.1e}")
    assert far < 1e-9


@every_form
@every_cost
def test_the_last_two_hundred_of_a_million(million, form, basis, quantity):
    rows, before, shown = million
    window = {name: value - before[name] for name, value in shown.items()}
    far = farthest(form, basis, quantity, window, rows.last(WINDOW))
    print(f"{form} {quantity}: {far:.1e}")
    assert far < 1e-8
