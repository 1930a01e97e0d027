"""Plain requests of a known truth, as a window's sums: no gateway, no socket, no clock.

Rows are arrays: u uncached prompt tokens, i prompt tokens, o answer tokens, r other requests
running, y the cost, p the live prediction. `sum_rows` does in numpy what the gateway does in
integers (`gateway.telemetry.sums_row`); test_refit_drills holds the one against the other.
"""

import numpy as np

from calibration.recalibrate.faults import parse_powers
from calibration.recalibrate.sums import SumBlock
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import (
    COSTS,
    METERED,
    ORDINARY,
    ROW_TERMS,
    ROWS,
    TERMS,
    WINSOR,
)

TRUTH = {
    CostQuantity.SECONDS: (RegressionForm.LOAD_CONTEXT, (0.08, 0.0004, 0.02, 2e-6, 0.0006)),
    CostQuantity.JOULES: (RegressionForm.LOAD_CONTEXT, (20.0, 0.05, 0.8, 3e-4, 4.5)),
}
WINDOW_SECONDS = 6 * 3600.0
SCRAPE_SECONDS = 15.0


def evaluate(form, quantity, coefficients, rows):
    """The same as gateway.scheduling.cost.Cost.raw, over arrays."""
    b0, b1, b2, b3, b4 = (*coefficients, 0.0, 0.0)[:5]
    i, o, r = rows["i"], rows["o"], rows["r"]
    product = o * (i + o / 2) if form.reads_context else o * i
    load = o / (1 + r) if quantity is CostQuantity.JOULES else o * r
    return b0 + b1 * rows["u"] + b2 * o + b3 * product + b4 * load


def draw_requests(rng, size, quantity=CostQuantity.SECONDS, noise=0.3, cached=0.0):
    """Requests over the window: the load wanders by the quarter of an hour."""
    at = np.sort(rng.uniform(0.0, WINDOW_SECONDS, size))
    i = np.maximum(4, rng.lognormal(5.3, 0.9, size).astype(int)).astype(float)
    o = np.maximum(2, rng.lognormal(5.0, 0.8, size).astype(int)).astype(float)
    level = rng.uniform(0.0, 24.0, int(WINDOW_SECONDS // 900) + 1)[(at // 900).astype(int)]
    r = np.maximum(0.0, level + rng.normal(0.0, 2.0, size))
    held = rng.random(size) < cached
    u = np.where(held, np.floor(i * 0.1), i)
    rows = {"at": at, "i": i, "o": o, "u": u, "r": r}
    rows["truth"] = evaluate(*shape(quantity), rows)
    rows["y"] = rows["truth"] * rng.lognormal(-(noise**2) / 2, noise, size)
    return rows


def shape(quantity):
    form, coefficients = TRUTH[quantity]
    return form, quantity, coefficients


def live_profile(quantity=CostQuantity.SECONDS, factor=1.0):
    """The true profile, or one that is off by a factor."""
    form, coefficients = TRUTH[quantity]
    return CostRegression(form=form, coefficients=[factor * b for b in coefficients])


def sum_rows(rows, live, quantity=CostQuantity.SECONDS):
    """What a gateway adds for each row, by basis: costs and rows."""
    form, b = live.form, live.coefficients
    p = evaluate(form, quantity, b, rows)
    typical = CostFunction(quantity, form, tuple(b)).predict_cost(100.0, 100.0)
    floored = p <= 1e-3
    low, high = rows["y"] < p / WINSOR, rows["y"] > p * WINSOR
    y = np.clip(rows["y"], p / WINSOR, p * WINSOR)
    letters = {
        "w": 1.0 / np.maximum(p, typical / 10.0) ** 2,
        "u": rows["u"], "i": rows["i"], "o": rows["o"], "y": y,
        "t": np.clip(rows["y"] - p, -p / ORDINARY, p / ORDINARY),
        "z": rows["o"]
        * (1 / (1 + rows["r"]) if quantity is CostQuantity.JOULES else rows["r"]),
    }  # fmt: skip
    columns = []
    for term in TERMS[COSTS]:
        product = np.where(floored, 0.0, 1.0)
        for letter, power in parse_powers(term).items():
            product = product * letters[letter] ** power
        columns.append(product)
    counts = {"rows": np.ones(len(p)), "floored": floored, "low": low, "high": high}
    assert tuple(counts) == ROW_TERMS
    return np.column_stack(columns), np.column_stack(list(counts.values())).astype(float)


def make_block(basis, rows, each):
    """Add what each row added up to a cluster per scrape."""
    scrape = np.floor(rows["at"] / SCRAPE_SECONDS).astype(int)
    labels, where = np.unique(scrape, return_inverse=True)
    total = np.zeros((len(labels), each.shape[1]))
    np.add.at(total, where, each)
    return SumBlock(basis, total, (labels + 1.0) * SCRAPE_SECONDS, instances=1)


def make_blocks(rows, live, quantity=CostQuantity.SECONDS):
    """The blocks of costs and of row counts."""
    costs, counts = sum_rows(rows, live, quantity)
    return make_block(COSTS, rows, costs), make_block(ROWS, rows, counts)


def make_metered(rows, live, metered, quantity=CostQuantity.JOULES):
    """The block that says which rows' joules were measured."""
    p = evaluate(live.form, quantity, live.coefficients, rows)
    one = np.column_stack([np.ones(len(p)), p, rows["o"]])  # seconds grow with the answer
    return make_block(METERED, rows, np.hstack([one, one * metered[:, None]]))


def take_rows(rows, chosen):
    """Some of the rows."""
    return {name: column[chosen] for name, column in rows.items()}
