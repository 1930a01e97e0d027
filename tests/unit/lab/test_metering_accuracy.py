"""Metered joules against the physical truth, in virtual time: what docs/energy.md's table says."""

import pytest

from tests.lab.scenarios import SCENARIOS

SEEDS = (1, 2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_it_stays_within_what_was_asked(scenario, seed):
    run = scenario.run(seed)
    books = run.counters["gpu"]
    assert books.conserved
    assert books.unsettled_microjoules == 0
    charged = sum(one.charged_microjoules for one in run.requests)
    assert charged == books.request_microjoules
    assert len(run.measured()) == len(run.requests)
    print(f"{scenario.name}: {run.median_error():.2%} / {run.p95_error():.2%}")
    assert run.median_error() <= scenario.median
    if scenario.p95 is not None:
        assert run.p95_error() <= scenario.p95
    if scenario.sum_each is not None:
        for backend in {one.backend for one in run.requests}:
            assert abs(run.sum_error(lambda one, name=backend: one.backend == name)) <= 0.05
    if scenario.other is not None:
        assert books.other_share <= scenario.other
    assert set(run.methods()) <= {"exclusive", "apportioned"}
