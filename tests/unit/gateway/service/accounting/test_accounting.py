"""The books: a request is entered at once, its joules once they are final."""

import logging
from random import Random

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from backends.meter.protocol import UnattributedEnergy
from backends.registry import Backend, Deployment
from gateway.service.accounting.accounting import RequestAccounting
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.recent import RecentRequests
from gateway.telemetry.request_stages import BackendAttempt, WastedEnergy
from tests.unit.gateway.telemetry.request_records import make_record


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

    def __init__(self, on_energy, microjoules=0, method="estimated", *, unseen=False):
        self.on_energy = on_energy
        self.microjoules = microjoules
        self.method = method
        self.unseen = unseen


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
    return make_record(at=1.5, **{"model": "m", "code": 200, "estimated": 50.0} | fields)


def metric(books, name, **labels):
    """The sum of a metric's series that have these labels, whoever spent it."""
    return sum(
        sample.value
        for family in books._metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


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
    assert record.settled.co2e_grams == pytest.approx(50.0 / 3.6e6 * 360.0)
    books.flush()
    assert log == [record]


def test_many_are_not_left_to_one_flush(books, log):
    for number in range(100):
        books.add_record(answered(id=f"r{number}"))
    assert 100 - 64 <= len(log) < 100
    assert books.recent.get_record(log[-1].id) is log[-1]
    books.flush()
    assert [record.id for record in log] == [f"r{number}" for number in range(100)]


@pytest.mark.parametrize("observed_first", [True, False])
def test_joules_are_entered_once_the_meter_has_told_them(books, link, log, observed_first):
    record = answered()
    told = Told(record.expect_answer_energy(), 7_000_000, "exclusive")
    if observed_first:
        link.finished_attempts = [told]
        books.flush()
    books.add_record(record)
    books.flush()
    assert books.recent.get_record("r") is record
    if not observed_first:
        observed = record.to_dict()["observed"]
        assert (log, observed["joules"], observed["method"]) == ([], None, None)
        link.finished_attempts = [told]
        books.flush()
    assert log == [record]
    assert (energy(books, "exclusive"), energy(books, "estimated")) == (7.0, 0.0)
    assert record.to_dict()["observed"]["method"] == "exclusive"
    assert record.settled.co2e_grams == pytest.approx(7.0 / 3.6e6 * 360.0)


def test_what_was_not_measured_stays_as_predicted(books, link, log):
    record = answered()
    link.finished_attempts = [Told(record.expect_answer_energy(), 999)]
    books.add_record(record)
    books.flush()
    assert (*record.settled[:2], log) == (50.0, "estimated", [record])


def test_an_attempt_in_vain_is_its_models_and_held_for(books, link, log):
    record = answered(wasted=[WastedEnergy("other", 3.0)])
    wasted, answer = record.expect_wasted_energy(), record.expect_answer_energy()
    books.add_record(record)
    link.finished_attempts = [Told(answer, 7_000_000, "apportioned")]
    books.flush()
    assert log == []
    link.finished_attempts = [Told(wasted, 2_000_000, "exclusive")]
    books.flush()
    assert log == [record]
    assert (energy(books, "exclusive", "other"), energy(books, "apportioned")) == (2.0, 7.0)


def test_what_the_last_attempt_spent_is_the_cost_of_a_request_that_nobody_answered(books, link):
    wasted = [WastedEnergy("m", 3.0)]
    attempts = [BackendAttempt("m", "a:1", "silent")]
    record = answered(code=504, model="", estimated=None, wasted=wasted, attempts=attempts)
    record.blame_last_attempt()
    told = record.expect_wasted_energy()
    books.add_record(record)
    link.finished_attempts = [Told(told, 2_000_000, "exclusive")]
    books.flush()
    assert record.settled[:3] == (2.0, "exclusive", ())
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
    record = answered()
    link.left = [Told(record.expect_answer_energy())]
    books.add_record(record)
    books.close()
    assert (log, record.settled.method) == ([record], "estimated")


def test_one_record_does_not_cost_the_others(books, link, log, caplog):
    broken, good = answered(), answered()
    strange = Told(broken.expect_answer_energy(), 1, "exclusive")
    sound = Told(good.expect_answer_energy(), 1_000_000, "exclusive")
    for record in (broken, good):
        books.add_record(record)
    books.flush()
    strange.microjoules = "much"
    link.finished_attempts = [strange, sound]
    with caplog.at_level(logging.ERROR):
        books.flush()
    assert "a bug in applying an observation" in caplog.text
    assert log == [good]


def test_an_attempt_that_nobody_owns_is_nobodys(books, link, log):
    told = Told(None, 5, "exclusive")
    link.finished_attempts = [told]
    books.flush()
    assert log == []


def test_what_a_meter_told_before_the_answer_was_over_is_kept(books, link):
    record = answered(estimated=None)
    link.finished_attempts = [Told(record.expect_answer_energy(), 7_000_000, "exclusive")]
    books.flush()
    record.served = replace(record.served, estimated_joules=50.0)
    books.add_record(record)
    books.flush()
    assert record.settled[:2] == (7.0, "exclusive")


def test_an_answer_that_nobody_saw_has_the_meters_own_number(books, link):
    record = answered()
    link.finished_attempts = [Told(record.expect_answer_energy(), 7_000_000, unseen=True)]
    books.add_record(record)
    books.flush()
    assert record.settled[:2] == (7.0, "estimated")


def test_a_wasted_attempt_that_nobody_saw_has_the_meters_own_number(books, link):
    record = answered()
    record.wasted.append(WastedEnergy("m", 2.0))
    link.finished_attempts = [Told(record.expect_wasted_energy(), 5_000_000, unseen=True)]
    books.add_record(record)
    books.flush()
    assert record.settled.wasted == (WastedEnergy("m", 5.0, "estimated"),)
