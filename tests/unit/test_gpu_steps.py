"""The fit of measured steps: what the script on a GPU makes of its rows."""

import json
import random
from pathlib import Path

import pytest

from tests.gpu.steps_fit import (
    PARTS,
    compute_period_seconds,
    compute_watts,
    fit_steps,
    list_features,
    summarise_steps,
)

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "measured/steps_h200.json").read_text(encoding="utf-8"))
PASSES = {"first": 0, "again": 1}
TRUTH = {
    "joules": dict(zip(PARTS, (4.0, 0.05, 0.02, 1e-5), strict=True)),
    "seconds": dict(zip(PARTS, (0.01, 1e-4, 4e-5, 2e-8), strict=True)),
}


def measured(noise=0.0, seed=1):
    """Rows of the script's own grid, as a model of these parts would give them."""
    random_ = random.Random(seed)
    rows = [{"kind": "prefill", "batch": 1, "tokens": 64 << n} for n in range(7)]
    rows += [
        {"kind": "decode", "batch": 1 << n, "context": 256 << m} for n in range(8) for m in range(5)
    ]
    for row in rows:
        row["model"] = "m"
        for target, parts in TRUTH.items():
            true = sum(
                part * feature
                for part, feature in zip(parts.values(), list_features(row), strict=True)
            )
            row[target] = true * (1 + noise * random_.gauss(0, 1))
    return rows


@pytest.mark.parametrize("target", ["joules", "seconds"])
def test_exact_rows_give_the_parts_they_were_made_of(target):
    found = fit_steps(measured(), target)
    for part, value in TRUTH[target].items():
        assert found[part] == pytest.approx(value, rel=1e-6)
        assert found[f"{part}_error"] < 1e-6 * value
    assert found["largest_relative_error_to_batch_8"] < 1e-6


def test_noise_shows_in_the_errors_and_they_hold_the_truth():
    inside = 0
    for seed in range(100):
        found = fit_steps(measured(noise=0.05, seed=seed), "joules")
        off = abs(found["fixed"] - TRUTH["joules"]["fixed"])
        inside += off < 2 * found["fixed_error"]
        assert found["median_relative_error"] > 0.01
    assert inside >= 88


def test_rows_that_cannot_tell_the_parts_apart_are_refused():
    decode = [row for row in measured() if row["kind"] == "decode"]
    with pytest.raises(ValueError, match="per_prompt_token"):
        fit_steps(decode, "joules")
    with pytest.raises(ValueError, match="3 rows for 4 parts"):
        fit_steps(decode[:3], "joules")
    prefill = [row for row in measured() if row["kind"] == "prefill"]
    with pytest.raises(ValueError, match="do not tell"):
        fit_steps(prefill + decode[:1], "joules")


def test_period_and_power_of_a_counter_that_was_looked_at_between():
    readings = [(n * 0.007, int(n * 0.007 / 0.1) * 30_000_000) for n in range(300)]
    assert compute_period_seconds(readings) == pytest.approx(0.1, rel=0.1)
    watts, changes = compute_watts(readings)
    assert watts == pytest.approx(300, rel=0.01)
    assert changes == 20
    assert compute_watts(readings[:10]) is None
    assert compute_period_seconds(readings[:20]) is None


def test_a_summary_says_what_could_not_be_fitted():
    rows = measured()
    for row in rows:
        del row["joules"]  # the counter never moved
    said = summarise_steps([{"kind": "idle", "watts": 70.0, "changes": 9}, *rows])
    assert said["idle"]["watts"] == 70.0
    assert said["counter"] is None
    assert said["models"]["m"]["seconds"]["fixed"] == pytest.approx(0.01)
    assert said["models"]["m"]["joules"] == {"rows": 0, "not_fitted": "0 rows for 4 parts"}


def read_measured(model, which):
    """Rows of one of the two passes on an H200, as the script writes them."""
    cells = MEASURED["models"][model]
    for tokens, *costs in cells["prefill"]:
        row = {"kind": "prefill", "batch": 1, "tokens": tokens}
        yield row | {"joules": costs[which], "seconds": costs[2 + which]}
    for batch, context, *costs in cells["decode"]:
        row = {"kind": "decode", "batch": batch, "context": context}
        yield row | {"joules": costs[which], "seconds": costs[2 + which]}


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("model", MEASURED["models"])
def test_the_parts_in_the_docs_are_those_of_the_rows_measured_on_a_gpu(model, which):
    scales = {"joules": (1.0, 1e3, 1e3, 1e6), "seconds": (1e3, 1e6, 1e6, 1e9)}
    shown = (DOCS / "profiling.md").read_text(encoding="utf-8")
    for target, units in scales.items():
        found = fit_steps([*read_measured(model, PASSES[which])], target)
        parts = " | ".join(
            f"{found[part] * unit:.3g} ± {found[f'{part}_error'] * unit:.2g}"
            for part, unit in zip(PARTS, units, strict=True)
        )
        few = [found[f"{kind}_relative_error_to_batch_8"] for kind in ("median", "largest")]
        errors = ", ".join(f"{error:.1%}" for error in few)
        assert f"| {model} | {target} | {which} | {parts} | {errors} |" in shown


def test_the_meter_on_a_gpu_charged_all_that_the_counter_moved():
    for run in MEASURED["meter"]:
        assert run["unbalanced_microjoules"] == 0
        books, observed = run["books_joules"], run["observed_joules"]
        assert sum(books.values()) == pytest.approx(run["counter_joules"]["in_all"], abs=2e-3)
        assert observed["alone"] + sum(observed["two"]) == pytest.approx(books["request"], abs=2e-3)
        assert observed["two"][1] == pytest.approx(2 * observed["two"][0], abs=2e-3)
