"""The shipped library: what it was fitted to, how far off it is, and how it is made anew."""

import csv
from collections import defaultdict
from importlib import resources
from statistics import fmean, median

import msgspec
import numpy as np
import pytest

from calibration.library.__main__ import LIBRARY_FILE, SUMMARY_FILE, run_build
from calibration.library.build import LEAST_POINTS, SeriesSummary
from calibration.library.relative_fit import solve_line
from gateway.library.shipped import load_library, name_entry

SERIES = (
    "task", "model_id", "gpu_model", "num_gpus", "weight_precision",
    "tensor_parallel", "data_parallel", "expert_parallel",
)  # fmt: skip
BOUNDS = {"joules": (0.07, 0.12), "seconds": (0.08, 0.13)}
"""Largest median and mean leave-one-out error that the library may have."""


@pytest.fixture(scope="module")
def sums():
    raw = (resources.files("calibration.library") / "summary.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, SeriesSummary])


@pytest.fixture(scope="module")
def points_file(shared_data):
    path = shared_data / "gpu_energy_points.csv"
    if not path.is_file():
        pytest.skip(f"the leaderboard's points are not at {path}")
    return path


@pytest.fixture(scope="module")
def series(points_file):
    """Every series: (task, …) to its (batch, joules, seconds)."""
    found = defaultdict(list)
    with points_file.open(newline="") as file:
        for row in csv.DictReader(file):
            found[tuple(row[name] for name in SERIES)].append(
                (
                    float(row["avg_batch_size"]),
                    float(row["energy_per_token_joules"]),
                    float(row["median_itl_ms"]) / 1e3,
                )
            )
    return found


def columns(quantity, batch):
    """The design of a cost per token: b2, then b4's regressor in the `load` form."""
    return np.column_stack(
        [np.ones_like(batch), 1.0 / batch if quantity == "joules" else batch - 1.0]
    )


def fit_relative(x, y):
    """Least squares of relative errors, by other means than the library's own."""
    from scipy.optimize import nnls

    return nnls(x / y[:, None], np.ones_like(y))[0]


@pytest.mark.parametrize(("quantity", "column"), [("joules", 1), ("seconds", 2)])
def test_leave_one_out_errors_keep_their_bounds(series, quantity, column):
    errors = []
    judged = {key: points for key, points in series.items() if len(points) >= 5}
    for points in judged.values():
        table = np.array(points)
        x, y = columns(quantity, table[:, 0]), table[:, column]
        for at in range(len(y)):
            rest = np.arange(len(y)) != at
            errors.append(abs(x[at] @ fit_relative(x[rest], y[rest]) - y[at]) / y[at])
    most_median, most_mean = BOUNDS[quantity]
    assert median(errors) <= most_median
    assert fmean(errors) <= most_mean
    overall = load_library().leave_one_out
    told = getattr(overall, quantity)
    assert (overall.series, overall.points) == (len(judged), len(errors))
    assert (told.median, told.mean) == pytest.approx((median(errors), fmean(errors)), abs=1e-4)


def test_the_shipped_errors_keep_their_bounds():
    for quantity, (most_median, most_mean) in BOUNDS.items():
        told = getattr(load_library().leave_one_out, quantity)
        assert told.median <= most_median
        assert told.mean <= most_mean


def test_the_shipped_coefficients_are_those_of_the_points(series):
    library = load_library()
    long_enough = {key: points for key, points in series.items() if len(points) >= LEAST_POINTS}
    assert len(long_enough) == len(library.entries)
    for (task, model, gpu, gpus, *_), points in long_enough.items():
        entry = library.entries[name_entry(model, gpu, int(gpus), task)]
        table = np.array(points)
        for quantity, column in (("joules", 1), ("seconds", 2)):
            found = fit_relative(columns(quantity, table[:, 0]), table[:, column])
            _, _, b2, _, b4 = getattr(entry, quantity)
            assert (b2, b4) == pytest.approx(tuple(found), rel=1e-4)


def test_the_shipped_files_are_what_the_points_give(points_file, tmp_path):
    for path in (LIBRARY_FILE, SUMMARY_FILE):
        (tmp_path / path).parent.mkdir(parents=True)
    assert run_build(points_file, tmp_path, write=False) == 1
    assert run_build(points_file, tmp_path, write=True) == 0
    assert run_build(points_file, tmp_path, write=False) == 0
    shipped = resources.files("gateway") / "profiles" / "library.json"
    assert (tmp_path / LIBRARY_FILE).read_bytes() == shipped.read_bytes()


def test_the_shipped_coefficients_are_the_best_for_the_shipped_sums(sums):
    library = load_library()
    assert sums.keys() == library.entries.keys()
    for name, entry in library.entries.items():
        for quantity in ("joules", "seconds"):
            of = getattr(sums[name], quantity)
            _, _, b2, _, b4 = getattr(entry, quantity)
            assert of.points == entry.points
            assert (b2, b4) == pytest.approx(solve_line(of), rel=1e-5)
            least = of.relative_loss(b2, b4)
            for factor in (0.98, 1.02):
                assert of.relative_loss(factor * b2, b4) > least
                assert of.relative_loss(b2, factor * b4) > least
            # In sample no series is off by more than half, as a root mean square.
            assert (least / of.points) ** 0.5 < 0.5
