"""What counts for which arm: by arrival, joules with their request, washouts for nobody."""

import pytest
from prometheus_client import CollectorRegistry

from gateway.scheduling.switchback import BASELINE, TREATMENT, Switchback
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.request_stages import WastedEnergy
from tests.unit.gateway.telemetry.request_records import make_record

SWITCHBACK = Switchback("eco", 0, 1200.0, 60.0)
AT = next(k * 1200.0 for k in range(10) if SWITCHBACK.arm_of(k) == TREATMENT)


class World:
    def __init__(self):
        self.now = AT + 100.0
        self.registry = CollectorRegistry()
        self.metrics = ExperimentMetrics(self.registry, SWITCHBACK, "hybrid", lambda: self.now)

    def value(self, name, arm=TREATMENT, **more):
        labels = {"experiment": "eco", "arm": arm, **more}
        return self.registry.get_sample_value(f"joulegate_experiment_{name}", labels)


@pytest.fixture
def world():
    return World()


def record(arm=TREATMENT, **more):
    fields = {
        "id": "r", "at": AT + 70.0, "kind": "chat", "requested": "auto", "preset": "default",
        "stream": False, "code": 200, "prompt_tokens": 10, "completion_tokens": 20,
        "seconds": 1.5, "joules": 40.0, "method": "exclusive", "arm": arm,
    }  # fmt: skip
    return make_record(**{**fields, **more})


def test_every_series_is_there_before_any_request(world):
    for arm in (BASELINE, TREATMENT):
        for name in ("requests", "failures", "duration_seconds", "accuracy"):
            assert world.value(f"{name}_total", arm) == 0.0
        for kind in ("request", "idle", "other"):
            assert world.value("energy_joules_total", arm, kind=kind) == 0.0
    labels = {
        "experiment": "eco", "seed": "0", "block_seconds": "1200", "washout_seconds": "60",
        "baseline": "hybrid",
    }  # fmt: skip
    assert world.registry.get_sample_value("joulegate_experiment_info", labels) == 1.0


def test_the_arm_in_force(world):
    assert (world.value("arm"), world.value("arm", BASELINE)) == (1.0, 0.0)
    world.now = next(k * 1200.0 for k in range(10) if SWITCHBACK.arm_of(k) == BASELINE)
    world.metrics.publish()
    assert (world.value("arm"), world.value("arm", BASELINE)) == (0.0, 1.0)


def test_a_request_and_its_joules_belong_to_the_arm_of_its_arrival(world):
    one = record()
    world.metrics.count_request(one)
    world.now += 1200.0
    one.settled = one.settled._replace(wasted=(WastedEnergy("phi-3-mini", 2.0),))
    world.metrics.count_energy(one)
    assert world.value("requests_total") == 1.0
    assert world.value("duration_seconds_total") == 1.5
    assert world.value("tokens_total", type="completion") == 20.0
    assert world.value("energy_joules_total", kind="request") == 42.0
    assert world.value("energy_joules_total", BASELINE, kind="request") == 0.0
    assert world.value("estimated_energy_joules_total") == 2.0  # the wasted ones are


def test_joules_that_no_meter_measured_are_told_apart(world):
    world.metrics.count_energy(record(method="estimated"))
    world.metrics.count_energy(record(method="apportioned", joules=5.0))
    world.metrics.count_energy(record(method="coarse", joules=1.0))
    assert world.value("energy_joules_total", kind="request") == 46.0
    assert world.value("estimated_energy_joules_total") == 40.0
    assert world.value("estimated_energy_joules_total", BASELINE) == 0.0


def test_what_counts_for_no_arm_counts_nowhere(world):
    one = record(arm=None)
    world.metrics.count_request(one)
    world.metrics.count_energy(one)
    for arm in (BASELINE, TREATMENT):
        assert world.value("requests_total", arm) == 0.0
        assert world.value("energy_joules_total", arm, kind="request") == 0.0


def test_a_failure_is_no_answer_but_its_joules_were_spent(world):
    one = record(code=503)
    world.metrics.count_request(one)
    world.metrics.count_energy(one)
    assert (world.value("failures_total"), world.value("requests_total")) == (1.0, 0.0)
    assert world.value("energy_joules_total", kind="request") == 40.0


def test_idle_and_other_belong_to_the_time_they_are_told_in(world):
    world.metrics.count_unattributed("idle", 75.0)
    world.metrics.count_unattributed("other", 5.0)
    world.now = AT + 30.0  # a washout
    world.metrics.count_unattributed("idle", 75.0)
    assert world.value("energy_joules_total", kind="idle") == 75.0
    assert world.value("energy_joules_total", kind="other") == 5.0
    assert world.value("energy_joules_total", BASELINE, kind="idle") == 0.0
