"""Twenty seconds of each kind of traffic over real sockets, beside the same in virtual time.

Simulators, a meter and a gateway of its own process, all in real time: what the docs' tables are
measured with (virtual time) says the same of a request's joules as what users run.
"""

import os

import pytest

from tests.bench import energy_sockets
from tests.bench.twins_sockets import compare_twins

SECONDS = 20.0
APART = 0.02
"""How far medians and sums may lie apart; a rule that differed would show in tens of percent."""


@pytest.fixture(scope="module")
def rows():
    """A row for each kind; the comparison binds this process to a core meanwhile."""
    before = os.sched_getaffinity(0)
    try:
        yield {row["kind"]: row for row in energy_sockets.compare(SECONDS)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("kind", ["streamed", "burst", "two models", "long prompts"])
def test_sockets_and_virtual_time_charge_alike(rows, kind):
    row = rows[kind]
    print(row)
    assert row["requests"] >= 15
    (virtual, _, whole), (median, _, charged) = row["virtual"], row["sockets"]
    assert abs(median - virtual) <= APART
    assert abs(charged - whole) <= APART
    measured = sum(row["methods"].get(method, 0) for method in ("exclusive", "apportioned"))
    assert measured >= 0.8 * row["requests"]


def test_twin_runs_over_sockets_differ_by_what_they_do_in_virtual_time():
    """The same schedule with and without a third of the requests: what the counter has less of."""
    before = os.sched_getaffinity(0)
    try:
        virtual, sockets = compare_twins(SECONDS)
    finally:
        os.sched_setaffinity(0, before)
    print(virtual, sockets)
    assert sockets.charged == pytest.approx(virtual.charged, rel=0.05)
    assert sockets.saved == pytest.approx(virtual.saved, rel=0.15)
