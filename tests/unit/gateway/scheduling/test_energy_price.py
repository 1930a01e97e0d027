"""The price of joules: nothing within the budget, and what holds spending to it beyond."""

import math
import random

import pytest

from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.energy_price import EnergyPrice

WEIGHTS = MetricWeights.from_values(0.8, 0.1, 0.1)


def run(joules_per_hour, hours=6):
    """A dear model that is right more often, the more so for some prompts; one request a second."""
    price, rng, spent = EnergyPrice(joules_per_hour), random.Random(1), []
    for second in range(int(hours * 3600)):
        price.update(float(second))
        gain, weights = rng.random(), price.apply(WEIGHTS)
        dear = weights.accuracy * gain > weights.energy * math.log10(4.0)
        price.spend(400.0 if dear else 100.0)
        spent.append(400.0 if dear else 100.0)
    return price, sum(spent[len(spent) // 2 :]) / (len(spent) / 2) * 3600.0


def test_a_budget_that_is_not_reached_costs_nothing():
    price, _ = run(2_000_000)
    assert price.value == 0.0
    assert price.apply(WEIGHTS) is WEIGHTS


@pytest.mark.parametrize("budget", [600_000, 900_000, 1_200_000])
def test_spending_is_held_to_the_budget(budget):
    price, found = run(budget)
    assert found == pytest.approx(budget, rel=0.03)
    assert price.value > 0.0
    assert price.joules_per_hour == pytest.approx(budget, rel=0.1)


def test_a_budget_below_the_cheapest_ends_at_the_highest_price_and_comes_back():
    price, found = run(100_000)
    assert found == 360_000
    high = price.value
    for second in range(100_000, 140_000, 10):
        price.update(float(second))
    assert price.value < high


def test_no_budget_is_none():
    for joules in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="above 0"):
            EnergyPrice(joules)
