"""What packing saves and costs, by the product's placement on a virtual clock, 20 minutes a cell.

Asked of it: joules of at most 0.60, 0.50, 0.55 and 0.70 of spreading at 1, 2, 4 and 8 requests/s,
idle included, and a p95 of the time per token of at most 1.2 times.
"""

import pytest

from gateway.scheduling.decision import MetricWeights
from tests.lab import Arrival, Lab, Load, Meter, bursts
from tests.lab.gateways import LabGateways
from tests.lab.packing import (
    LONGER_TOKENS_IN,
    packed_costs,
    packing_fleet,
    run_packed,
    schedule,
    spread_costs,
)

pytestmark = pytest.mark.slow

FLEET = packing_fleet()
RATES = [1.0, 2.0, 4.0, 8.0]
MOST_JOULES = {1.0: 0.60, 2.0: 0.50, 4.0: 0.55, 8.0: 0.70}
ALONE_SECONDS = FLEET.profiles["qwen"].seconds.coefficients[2]
EACH_SECONDS = FLEET.profiles["qwen"].seconds.coefficients[4]
WARM = 120.0


@pytest.mark.parametrize("rate", RATES)
def test_packing_saves_what_was_asked_and_costs_little_time(rate):
    packed, spread = packed_costs(rate), spread_costs(rate)
    assert packed.joules_against(spread) <= MOST_JOULES[rate]
    assert packed.p95_against(spread) <= 1.2


@pytest.mark.parametrize(
    ("rate", "joules", "p95"),
    [(1.0, 0.53, 1.11), (2.0, 0.42, 1.20), (4.0, 0.53, 1.30), (8.0, 0.75, 1.21)],
)
def test_with_longer_prompts_it_saves_and_costs_what_the_docs_say(rate, joules, p95):
    packed, spread = packed_costs(rate, LONGER_TOKENS_IN), spread_costs(rate, LONGER_TOKENS_IN)
    assert packed.joules_against(spread) == pytest.approx(joules, abs=0.02)
    assert packed.p95_against(spread) == pytest.approx(p95, abs=0.02)


@pytest.mark.parametrize("rate", RATES)
def test_it_saves_as_much_from_a_start_in_which_everything_was_spread(rate):
    arrivals = schedule(rate, 1200.0 + WARM)
    was_spread = run_packed(arrivals, LabGateways(FLEET, spread_until=WARM), since=WARM)
    never = run_packed(arrivals, LabGateways(FLEET), since=WARM)
    assert was_spread.joules_against(never) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("rate", "gauges"), [*((rate, (1.0, 3.0)) for rate in RATES), (4.0, (3.0,)), (8.0, (3.0,))]
)
def test_two_gateways_that_see_each_other_late_pack_as_well_and_keep_the_cap(rate, gauges):
    place = LabGateways(FLEET, gateways=2, gauge_seconds=gauges)
    two = run_packed(schedule(rate), place)
    assert two.joules_against(packed_costs(rate)) == pytest.approx(1.0, abs=0.1)
    assert two.p95_token_seconds <= 1.3 * ALONE_SECONDS
    # The time per token of the fullest moment of all, prompts aside.
    fullest = ALONE_SECONDS + EACH_SECONDS * (two.most_running - 1)
    assert fullest <= 1.3 * ALONE_SECONDS


@pytest.mark.parametrize("rate", RATES)
def test_a_weight_of_one_on_time_spreads(rate):
    fast = run_packed(
        schedule(rate), LabGateways(FLEET, weights=MetricWeights.from_values(time=1.0))
    )
    assert fast.used == 4
    assert fast.joules_against(spread_costs(rate)) == pytest.approx(1.0, abs=0.02)
    assert fast.p95_against(spread_costs(rate)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("gateways", [1, 2])
def test_a_burst_of_sixty_leaves_no_backend_with_a_queue_while_others_are_empty(gateways):
    place = LabGateways(FLEET, gateways=gateways, gauge_seconds=(3.0,))
    looks: list[dict[str, Load]] = []
    look = place.look

    def watch(now, loads):
        looks.append(dict(loads))
        look(now, loads)

    place.look = watch
    arrivals = bursts(count=60, every_seconds=60.0, seconds=300.0, seed=1, tokens_in=(20, 300))
    lab = Lab(FLEET.backends, place=place, onlooker=place, meter=Meter(off=True))
    lab.run(arrivals)
    mostly_empty = [
        loads.values() for loads in looks if sum(not sum(load) for load in loads.values()) >= 3
    ]
    assert any(load.running for loads in mostly_empty for load in loads)
    for loads in mostly_empty:
        assert not any(load.waiting for load in loads)
        assert max(load.running for load in loads) <= 21


def test_prompts_that_are_still_to_be_read_close_a_backend():
    place = LabGateways(FLEET)
    arrivals = [Arrival(0.001 * n, 3000, 100) for n in range(12)]
    lab = Lab(FLEET.backends, place=place, onlooker=place, meter=Meter(off=True))
    run = lab.run(arrivals)
    # Five prompts of 3,000 tokens keep within 16,384.
    assert [one.backend for one in run.requests[:10]] == ["qwen-0"] * 5 + ["qwen-1"] * 5
