"""Whichever model had the traffic before: what is chosen afterwards is the same.

Two models with two replicas each, at weights and accuracies that leave them nearly level, so that
anything that history could tip would tip.
"""

import pytest

from tests.lab import Lab, Meter
from tests.lab.gateways import FleetSpec, LabGateways
from tests.lab.schedule import poisson

CHEAP, DEAR = "small", "large"
FLEET = FleetSpec({CHEAP: ("Qwen3-14B@H100", 0.5, 2), DEAR: ("gemma-3-27b-it@H100", 0.8, 2)})
HISTORY, SECONDS = 120.0, 1200.0


def share_of_the_dear(rate, *, first, own_load=False):
    """The dear model's share of the requests after two minutes in which `first` had them all."""
    arrivals = poisson(rate=rate, seconds=HISTORY + SECONDS, seed=1, tokens_in=(20, 300))
    until = HISTORY if first else 0.0
    place = LabGateways(FLEET, forced=(until, first), own_load=own_load)
    lab = Lab(FLEET.backends, place=place, onlooker=place, meter=Meter(off=True))
    run = lab.run(arrivals)
    after = [one for one in run.requests if one.arrival.at_seconds >= HISTORY]
    return sum(one.backend in FLEET.replicas[DEAR] for one in after) / len(after)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1.0, 2.0, 4.0, 8.0])
def test_the_share_of_the_dearer_model_does_not_depend_on_who_had_the_traffic(rate):
    without = share_of_the_dear(rate, first="")
    for first in (DEAR, CHEAP):
        assert share_of_the_dear(rate, first=first) == pytest.approx(without, abs=0.05)


@pytest.mark.slow
def test_joules_at_each_ones_own_load_would_lock_in_whoever_had_the_traffic():
    """The check can fail: this is what a common reference load is for."""
    had, had_not = (share_of_the_dear(4.0, first=one, own_load=True) for one in (DEAR, CHEAP))
    assert had - had_not > 0.3
