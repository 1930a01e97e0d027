"""The books: a request is entered at once, its joules once they are final."""

import logging
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from backends.meter.protocol import UnattributedEnergy
from backends.registry import Backend, Deployment
from gateway.service.accounting.accounting import RequestAccounting
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.recent import RecentRequests
from gateway.telemetry.record import BackendAttempt, RequestRecord, WastedEnergy


class Link:
    """What the books drain."""

    def __init__(self):
        self.label = "meter"
        self.finished_attempts, self.unattributed_energy = [], []
        self.left = []

    def close(self):
        self.finished_attempts += self.left


class Told:
    """What a link says of one attempt."""

    def __init__(self, record, target, microjoules=0, method="estimated"):
        self.owner = (record, target)
        self.microjoules = microjoules
        self.method = method
        self.unseen = False


class Log(list):
    add_record = list.append


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def books(link, log):
    deployment = Deployment("m", "m", "m", [Backend("http://a:1")], rng=Random(1))
    return RequestAccounting(
        GatewayMetrics(CollectorRegistry(), shared=False),
        RecentRequests(10),
        [deployment],
        decision_log=log,
        meters=(link,),
        carbon=CarbonIntensity(360.0),
    )


def answered(**fields):
    fields = {"model": "m", "code": 200, "joules": 50.0, "method": "estimated"} | fields
    return RequestRecord("r", 1.5, "chat", "auto", "default", False, **fields)


def metric(books, name, **labels):
    return books._metrics.registry.get_sample_value(name, labels) or 0.0


def energy(books, method, model="m"):
    name = "joulegate_energy_joules_total"
    return metric(books, name, model=model, method=method)


def test_without_a_meter_it_is_final_at_once(books, log):
    record = answered()
    books.add_record(record)
    assert (books.recent.get_record("r"), log) == (None, [])
    books.flush()
    assert books.recent.get_record("r") is record
    assert log == [record]
    assert energy(books, "estimated") == 50.0
    assert record.co2e_grams == pytest.approx(50.0 / 3.6e6 * 360.0)
    books.flush()
    assert log == [record]


@pytest.mark.parametrize("observed_first", [True, False])
def test_joules_are_entered_once_the_meter_has_told_them(books, link, log, observed_first):
    record = answered(unsettled=1)
    assert record.to_dict()["observed"]["joules"] is None
    told = Told(record, record, 7_000_000, "exclusive")
    if observed_first:
        link.finished_attempts = [told]
        books.flush()
    books.add_record(record)
    books.flush()
    assert books.recent.get_record("r") is record
    if not observed_first:
        assert (log, record.final_joules, record.final_method) == ([], None, None)
        link.finished_attempts = [told]
        books.flush()
    assert log == [record]
    assert (energy(books, "exclusive"), energy(books, "estimated")) == (7.0, 0.0)
    assert record.to_dict()["observed"]["method"] == "exclusive"
    assert record.co2e_grams == pytest.approx(7.0 / 3.6e6 * 360.0)


def test_what_was_not_measured_stays_as_predicted(books, link, log):
    record = answered(unsettled=1)
    link.finished_attempts = [Told(record, record, 999)]
    books.add_record(record)
    books.flush()
    assert (record.joules, record.method, log) == (50.0, "estimated", [record])


def test_an_attempt_in_vain_is_its_models_and_held_for(books, link, log):
    wasted = WastedEnergy("other", 3.0)
    record = answered(unsettled=2, wasted=[wasted])
    books.add_record(record)
    link.finished_attempts = [Told(record, record, 7_000_000, "apportioned")]
    books.flush()
    assert log == []
    link.finished_attempts = [Told(record, wasted, 2_000_000, "exclusive")]
    books.flush()
    assert log == [record]
    assert (energy(books, "exclusive", "other"), energy(books, "apportioned")) == (2.0, 7.0)


def test_what_the_last_attempt_spent_is_the_cost_of_a_request_that_nobody_answered(books, link):
    wasted = WastedEnergy("m", 3.0)
    attempts = [BackendAttempt("m", "a:1", "silent")]
    record = answered(
        code=504, joules=None, method=None, unsettled=1, wasted=[wasted], attempts=attempts
    )
    books.add_record(record)
    link.finished_attempts = [Told(record, wasted, 2_000_000, "exclusive")]
    books.flush()
    assert (record.joules, record.method, record.wasted) == (2.0, "exclusive", [])
    assert energy(books, "exclusive") == 2.0


def test_idle_and_other_go_to_the_backends_model(books, link):
    link.unattributed_energy = [
        UnattributedEnergy(1, "a:1", "idle", 4_000_000),
        UnattributedEnergy(2, "a:1", "other", 2_000_000),
        UnattributedEnergy(3, "unheard:1", "idle", 9_000_000),
    ]
    books.flush()
    books.flush()
    assert (energy(books, "idle"), energy(books, "other"), link.unattributed_energy) == (
        4.0,
        2.0,
        [],
    )


def test_closing_enters_what_nobody_settled(books, link, log):
    record = answered(unsettled=1)
    books.add_record(record)
    link.left = [Told(record, record)]
    books.close()
    assert (log, record.final_method) == ([record], "estimated")


def test_one_record_does_not_cost_the_others(books, link, log, caplog):
    broken, good = answered(unsettled=1), answered(unsettled=1)
    for record in (broken, good):
        books.add_record(record)
    books.flush()
    strange = Told(broken, broken, 1, "exclusive")
    strange.microjoules = "much"
    link.finished_attempts = [strange, Told(good, good, 1_000_000, "exclusive")]
    with caplog.at_level(logging.ERROR):
        books.flush()
    assert "a bug in applying an observation" in caplog.text
    assert log == [good]


def test_an_attempt_that_nobody_owns_is_nobodys(books, link, log):
    told = Told(None, None, 5, "exclusive")
    told.owner = None
    link.finished_attempts = [told]
    books.flush()
    assert log == []


def test_an_answer_that_nobody_saw_has_the_meters_own_number(books, link):
    record = answered(unsettled=1)
    told = Told(record, record, 7_000_000)
    told.unseen = True
    link.finished_attempts = [told]
    books.add_record(record)
    books.flush()
    assert (record.final_joules, record.final_method) == (7.0, "estimated")
