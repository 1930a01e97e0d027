"""From accelerators' joules to the wall, to grams and to money."""

import pytest

from gateway.telemetry.boundary import (
    BoundaryRates,
    HostEnergyShare,
    IdleRatio,
    convert_joules,
    draw_boundary,
)

RATES = BoundaryRates(1.5, 400.0, 0.2, "EUR")


def test_a_kilowatt_hour():
    assert convert_joules(3.6e6, RATES) == pytest.approx((5.4e6, 600.0, 0.3))
    assert convert_joules(3.6e6, BoundaryRates()) == (3.6e6, None, None)


def test_each_line_of_a_request():
    shown = draw_boundary(2.4e6, HostEnergyShare(1.2e6, "rapl"), 0.5, RATES).to_dict()
    assert shown == {
        "host_joules": 1.2e6,
        "host_source": "rapl",
        "overhead_joules": pytest.approx(1.8e6),
        "idle_joules": pytest.approx(1.8e6),
        "facility_joules": pytest.approx(5.4e6),
        "facility_joules_with_idle": pytest.approx(8.1e6),
        "co2e_grams": pytest.approx(600.0),
        "co2e_grams_with_idle": pytest.approx(900.0),
        "cost": pytest.approx(0.3),
        "cost_with_idle": pytest.approx(0.45),
        "currency": "EUR",
    }


def test_what_is_not_known_is_null():
    shown = draw_boundary(10.0, HostEnergyShare(5.0, "configured"), None, BoundaryRates()).to_dict()
    assert (shown["facility_joules"], shown["overhead_joules"]) == (15.0, 0.0)
    for name in ("idle_joules", "facility_joules_with_idle", "co2e_grams", "co2e_grams_with_idle"):
        assert shown[name] is None
    for name in ("cost", "cost_with_idle", "currency"):
        assert shown[name] is None


def test_the_idle_ratio_needs_something_used_and_forgets():
    ratio = IdleRatio(0.0)
    ratio.add_joules(1.0, idle=50.0)
    assert ratio.value is None
    ratio.add_joules(1.0, used=100.0)
    assert ratio.value == pytest.approx(0.5)
    ratio.add_joules(30 * 86_400.0, used=100.0)
    assert ratio.value == pytest.approx(0.0, abs=1e-9)
    ratio.add_joules(0.0, idle=20.0)
    assert ratio.value == pytest.approx(0.2)
