"""Switchbacks in the step engine; `python -m tests.bench savings` runs a hundred."""

import pytest

from tests.bench.savings import count_verdicts
from tests.lab.switchback import SAVINGS, find_factor, run_scaled, run_switchback

RUNS = 10
pytestmark = pytest.mark.slow


def test_intervals_hold_the_truth_and_savings_are_called_what_they_are():
    for (saving, _), (held, called) in count_verdicts(range(1, RUNS + 1)).items():
        assert held >= 0.8 * RUNS
        if saving == 0.0:
            assert called == 0
        if saving == SAVINGS[-1]:
            assert called >= 0.9 * RUNS


def test_a_gpu_that_costs_less_is_charged_as_the_scaled_one_is_counted():
    """The engine of the treatment itself, at four fifths or so of the joules, says the same."""
    factor = find_factor(0.2)
    assert 0.6 < factor < 0.8
    (counted,) = run_switchback(1, (factor,))
    run, served = run_scaled(1, factor)
    assert {one.backend for one in run.requests} == {"a", "b"}
    for name, one in counted.items():
        assert one.treatment == pytest.approx(served[name].treatment, rel=1e-3), name
        assert one.baseline == pytest.approx(served[name].baseline, rel=1e-9), name
        assert one.low == pytest.approx(served[name].low, abs=1e-3), name
