"""A server's power: counted where a meter counts it, else configured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.host_clock import HostClock
from gateway.telemetry.host_power import CONFIGURED, HostPower, HostReading


def read(power, joules, seconds, charged, now, counter=1):
    power.record_energy(HostReading("rapl", counter, joules, seconds), charged, now)
    return power.source, power.watts


def test_the_configured_watts_until_a_counter_has_been_read_twice():
    power = HostPower(300.0)
    assert (power.source, power.watts) == (CONFIGURED, 300.0)
    assert read(power, 5000.0, 50.0, 0.0, 0.0) == (CONFIGURED, 300.0)
    # 80 W were counted in that second and 300 charged: 220 J are to be made good in ten.
    assert read(power, 5080.0, 51.0, 300.0, 1.0) == ("rapl", pytest.approx(80.0 - 22.0))


def test_an_answer_without_a_new_reading_changes_nothing():
    power = HostPower(0.0)
    read(power, 0.0, 0.0, 0.0, 0.0)
    before = read(power, 100.0, 1.0, 0.0, 1.0)
    assert read(power, 100.0, 1.0, 25.0, 1.25) == before


def test_a_counter_that_began_anew_is_held_against_nothing_before():
    power = HostPower(0.0)
    read(power, 0.0, 0.0, 0.0, 0.0)
    read(power, 100.0, 1.0, 100.0, 1.0)
    assert read(power, 3.0, 0.1, 200.0, 2.0) == ("rapl", pytest.approx(100.0))
    assert read(power, 103.0, 1.1, 300.0, 3.0) == ("rapl", pytest.approx(100.0))
    # And so is another counter, though it stands higher.
    assert read(power, 9e6, 1e5, 400.0, 4.0, counter=2) == ("rapl", pytest.approx(100.0))
    assert read(power, 9e6 + 50.0, 1e5 + 1.0, 500.0, 5.0, counter=2)[1] == pytest.approx(45.0)


def test_readings_that_stop_give_way_to_the_configured_watts():
    power = HostPower(300.0)
    power.expire_reading(1000.0)
    read(power, 0.0, 0.0, 0.0, 0.0)
    read(power, 80.0, 1.0, 80.0, 1.0)
    power.expire_reading(16.0)
    assert power.source == "rapl"
    power.expire_reading(16.1)
    assert (power.source, power.watts) == (CONFIGURED, 300.0)
    assert read(power, 500.0, 40.0, 9e9, 40.0) == (CONFIGURED, 300.0)


def test_power_is_never_negative():
    power = HostPower(1000.0)
    read(power, 0.0, 0.0, 0.0, 0.0)
    assert read(power, 1.0, 1.0, 1000.0, 1.0) == ("rapl", 0.0)


@given(
    st.lists(st.tuples(st.floats(20.0, 400.0), st.floats(0.9, 1.3)), min_size=80, max_size=80),
    st.floats(0.0, 1.0),
)
def test_what_is_charged_follows_the_counter(seconds, late):
    """After a change of load the sums agree again: what is owed shrinks by a tenth a second."""
    clock, power = HostClock(300.0, 0.0), HostPower(300.0)
    joules = now = 0.0
    read(power, 0.0, 0.0, 0.0, 0.0)
    for watts, step in [*seconds, *[(100.0, 1.0)] * 80]:
        now += step
        joules += watts * step
        heard = now + late
        power.record_energy(
            HostReading("rapl", 1, joules, now), clock.read_charged_joules(heard), heard
        )
        clock.change_watts(power.watts, heard)
    # Readings that come late leave no more behind than what was drawn since.
    assert clock.read_charged_joules(now + late) == pytest.approx(joules, abs=400.0)
