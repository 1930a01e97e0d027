"""The reference project's published figures, from its own rows (test_published_sums: without)."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.fit import model as fit
from calibration.fit import published as reference
from calibration.tables.columns import BadInput, ColumnMapping
from calibration.tables.rows import read_rows
from gateway.scheduling.cost import RegressionForm

COLUMNS = [
    "tokens_in=input_tokens",
    "tokens_out=output_tokens",
    "seconds=runtime_seconds",
    "joules=energy_joules",
]
ACCURACY = {
    "phi-3-mini-4k-instruct": 0.685,
    "mistral-7B-instruct-v0.2": 0.723,
    "falcon-7b-instruct": 0.705,
}
# FACTS.md: b0, b1, b2 for new tokens, R2; as many digits as are printed there.
EQUATIONS = {
    ("falcon-7b-instruct", "joules"): (56.74, 1.367, 14.699, 0.169),
    ("falcon-7b-instruct", "seconds"): (0.0266, 0.0243, 0.1427, 0.222),
    ("mistral-7B-instruct-v0.2", "joules"): (46.72, 0.351, 5.891, 0.063),
    ("mistral-7B-instruct-v0.2", "seconds"): (-0.0218, 0.0095, 0.0522, 0.039),
    ("phi-3-mini-4k-instruct", "joules"): (40.90, 0.337, 5.787, 0.096),
    ("phi-3-mini-4k-instruct", "seconds"): (-0.0249, 0.0071, 0.0468, 0.075),
}


@pytest.fixture(scope="module")
def published(shared_data):
    return shared_data / "seed_profiles"


@pytest.fixture(scope="module")
def files(published):
    return sorted(published.glob("metrics_*.csv.gz"))


@pytest.fixture(scope="module")
def rows(files):
    return read_rows(files, ColumnMapping.from_options(col=COLUMNS))


@pytest.fixture(scope="module")
def found(rows):
    return reference.reproduce_figures(rows, ACCURACY)


def test_every_row_is_used(rows):
    assert rows.count_unusable() == []
    assert [len(rows.select_usable(model)) for model in rows.model_names] == [51234, 48521, 49071]


def test_the_sums_shipped_with_the_tests_are_those_of_the_rows(published):
    folder = Path(__file__).parent
    made = subprocess.run(
        [sys.executable, folder / "summarise_published.py", published],
        capture_output=True,
        check=True,
    ).stdout
    assert json.loads(made) == json.loads((folder / "published_sums.json").read_bytes())


def test_normalisation_statistics(found, published):
    expected = json.loads((published / "normalization_stats.json").read_text())
    assert set(found.stats) == set(expected)
    for model, columns in expected.items():
        assert set(found.stats[model]) == set(columns)
        for column, figures in columns.items():
            assert found.stats[model][column] == pytest.approx(figures, rel=1e-12), (model, column)


def test_z_scored_coefficients(found, published):
    with (published / "model_regression_summary.csv").open() as file:
        expected = {row.pop("model"): row for row in csv.DictReader(file)}
    assert [row["model"] for row in found.regressions] == list(expected)
    for row in found.regressions:
        for name, value in expected[row["model"]].items():
            assert row[name] == pytest.approx(float(value), abs=1e-9), (row["model"], name)


def test_pooled_output_length(found, rows):
    assert found.output.slope == pytest.approx(1.0281596946, abs=5e-11)
    # Published as 44.1201746541; exact rational arithmetic on the same rows gives …6501.
    assert found.output.intercept == pytest.approx(44.1201746541, abs=5e-9)
    assert found.output.intercept == pytest.approx(44.12017465006395, rel=1e-12)
    assert found.output.r2 == pytest.approx(0.1262, abs=5e-5)
    assert fit.fit_pooled_output(rows) == found.output


@pytest.fixture(scope="module")
def new_tokens(files):
    return read_rows(files, ColumnMapping.from_options(col=COLUMNS, output_includes_prompt=True))


@pytest.mark.slow
@pytest.mark.parametrize("form", [None, RegressionForm.ADDITIVE])
def test_raw_unit_equations_for_new_tokens(new_tokens, form, shipped):
    names = {"phi-3-mini-4k-instruct": "phi-3-mini", "mistral-7B-instruct-v0.2": "mistral-7b"}
    for fitted in fit.fit_all(new_tokens, form=form):
        for cost in fitted.cost_fits:
            *known, r2 = EQUATIONS[fitted.model, cost.quantity.value]
            steps = (0.005, 0.0005, 0.0005) if cost.quantity.value == "joules" else (5e-5,) * 3
            assert cost.form is RegressionForm.ADDITIVE
            for got, want, step in zip(cost.fitted.coefficients, known, steps, strict=True):
                # Half a unit of the last printed digit, and once a digit cut rather than rounded.
                assert got == pytest.approx(want, abs=2 * step)
            assert cost.fitted.r2 == pytest.approx(r2, abs=5e-4)
            of_profile = shipped.models[names.get(fitted.model, "falcon-7b")]
            shipped_cost = getattr(of_profile, cost.quantity.value)
            assert cost.fitted.coefficients == pytest.approx(shipped_cost.coefficients, rel=1e-9)
            assert cost.fitted.rmse == pytest.approx(shipped_cost.rmse, rel=1e-9)
        assert any("length hardly varies" in flag for flag in fitted.flags)


def test_without_joules_or_spread_it_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("model,tokens_in,tokens_out,seconds\n" + "a,1,2,3\n" * 20)
    with pytest.raises(BadInput, match="no row with joules"):
        reference.reproduce_figures(read_rows([path], ColumnMapping()), {})
    path.write_text("model,tokens_in,tokens_out,seconds,joules\n" + "a,1,2,3,4\n" * 20)
    with pytest.raises(BadInput, match="tokens_in never varies"):
        reference.reproduce_figures(read_rows([path], ColumnMapping()), {})
