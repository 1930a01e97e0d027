"""What a gateway would export of known rows, as Prometheus would hand it out."""

import numpy as np

from calibration.recalibrate.faults import parse_powers
from calibration.recalibrate.prometheus import Series
from gateway.scheduling.regression_terms import LIMIT_OCTAVES, METERED, OUTPUT, ROWS, TERMS

ONE = ("phi-3-mini", "phi-3-mini")
SCRAPE_SECONDS = 60.0


def letters(rows):
    """A row's letters, by `regression_terms`: with p, the live prediction, or weights of 1."""
    found = {"u": rows.get("u", rows["i"]), **{key: rows[key] for key in "ioyze"}}
    found["d"] = rows.get("d", np.zeros(len(rows["i"])))
    found["w"], found["t"] = np.ones(len(rows["i"])), np.zeros(len(rows["i"]))
    if "p" in rows:
        p, y = rows["p"], rows["y"]
        found["w"], found["t"] = 1.0 / p**2, np.clip(y - p, -p / 3, p / 3)
        found["y"] = np.clip(y, p / 5, 5 * p)
    return found


def terms(rows, basis):
    """Return one row of terms per request, from columns i, o, y, z, e (and u, p)."""
    size = len(rows["i"])
    if basis == ROWS:
        return np.tile([1.0, 0.0, 0.0, 0.0], (size, 1))
    if basis == METERED:
        one = np.column_stack([np.ones(size), np.ones(size), rows["o"]])
        return np.hstack([one, one * rows.get("metered", np.ones(size))[:, None]])
    if basis == OUTPUT:
        return lengths(rows["o"], rows.get("cut", np.zeros(size, dtype=bool)))
    columns = []
    known = letters(rows)
    for term in TERMS[basis]:
        product = np.ones(size)
        for variable, power in parse_powers(term).items():
            product = product * np.asarray(known[variable], dtype=float) ** power
        columns.append(product)
    return np.column_stack(columns)


def lengths(o, cut):
    """Return the terms of the output basis."""
    logs = np.log(np.maximum(o, 1.0))
    found = np.zeros((len(o), len(TERMS[OUTPUT])))
    found[:, :3] = np.column_stack([np.ones(len(o)), logs, logs**2]) * ~cut[:, None]
    octave = np.minimum(LIMIT_OCTAVES - 1, np.floor(np.log2(np.maximum(o, 1.0)))).astype(int)
    at = np.flatnonzero(cut)
    found[at, 3 + octave[at]] = 1.0
    found[at, 3 + LIMIT_OCTAVES + octave[at]] = logs[at]
    return found


def labels(term, basis, quantity="seconds", instance="a", model="phi-3-mini", deployment=None):
    return {
        "__name__": "joulegate_ols_sum_total", "model": model, "deployment": deployment or model,
        "basis": basis, "quantity": quantity, "term": term, "instance": instance, "job": "gw",
    }  # fmt: skip


def series(rows, basis, *, every=7, start=None, restarts=(), begin=1000.0, **named):
    """Return the series of one instance, scraped after each `every` rows.

    `start` rows were served before the window; at each row of `restarts` the process began anew
    (just after a scrape, so that nothing is lost).
    """
    each = terms(rows, basis)
    count = len(each)
    total = np.zeros(each.shape[1]) if start is None else terms(start, basis).sum(axis=0)
    shown, times = [total], [begin]
    at = 0
    while at < count:
        upto = min([count, at + every, *(r for r in restarts if r > at)])
        if at in restarts:
            total = np.zeros(each.shape[1])
        total = total + each[at:upto].sum(axis=0)
        shown.append(total)
        times.append(times[-1] + SCRAPE_SECONDS)
        at = upto
    return [
        Series(
            labels(term, basis, **named),
            [(when, repr(float(row[k]))) for when, row in zip(times, shown, strict=True)],
        )
        for k, term in enumerate(TERMS[basis])
    ]


def clusters(count, every=7, restarts=()):
    """Return the cluster number of each row, as `series` cuts them."""
    found, at, number = np.zeros(count, dtype=int), 0, 0
    while at < count:
        upto = min([count, at + every, *(r for r in restarts if r > at)])
        found[at:upto] = number
        number, at = number + 1, upto
    return found


def traffic(size, seed=0, *, noise=0.05, factor=1.0, quantity="seconds", steady=None):
    """Return rows of a known truth (load form), and its five coefficients."""
    rng = np.random.default_rng(seed)
    i = np.maximum(4, rng.lognormal(5.3, 0.7, size).astype(int)).astype(float)
    o = np.maximum(2, rng.lognormal(5.0, 0.7, size).astype(int)).astype(float)
    r = rng.integers(0, 32, size).astype(float) if steady is None else np.full(size, float(steady))
    truth = np.array(
        [0.05, 0.0004, 0.02, 1e-6, 0.0006] if quantity == "seconds" else [20, 0.05, 0.8, 2e-4, 4.5]
    )
    truth = truth * factor
    z = o * r if quantity == "seconds" else o / (1 + r)
    x = np.column_stack([np.ones(size), i, o, i * o, z])
    y = x @ truth * (1 + noise * rng.standard_normal(size))
    return {"i": i, "o": o, "r": r, "z": z, "y": y, "e": np.round(i / 1.1), "x": x}, truth


def by_scrape(every):
    """Return rows whose load is the same within a scrape interval."""
    rows, truth = traffic(2000)
    r = np.random.default_rng(5).integers(0, 32, 2000)[clusters(2000, every)]
    x = rows["x"].copy()
    x[:, 4] = rows["z"] = rows["o"] * r
    return {**rows, "r": r, "x": x, "y": x @ truth}, truth
