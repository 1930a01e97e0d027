"""A request's record from stage to stage, as request_stages.py draws it."""

import pytest

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import (
    AnsweredRequest,
    BackendAttempt,
    ClientOutcome,
    ParsedRequest,
    ReceivedRequest,
    RequestedName,
    ServedRequest,
    WastedEnergy,
)


@pytest.fixture
def received():
    return RequestRecord(ReceivedRequest("r", 1.0, "chat"), RequestedName("auto", "default"))


@pytest.fixture
def answered(received):
    received.parsed = ParsedRequest(stream=True)
    received.attempts.append(BackendAttempt("m", "b", None))
    received.answered = AnsweredRequest("m", "d", "b", predicted_joules=9.0)
    return received


@pytest.fixture
def served(answered):
    answered.served = ServedRequest(
        prompt_tokens=3, completion_tokens=4, serving_seconds=2.0, estimated_joules=5.0
    )
    answered.outcome = ClientOutcome(200, None)
    return answered


def test_received_stops_there_with_nothing_of_later_stages(received):
    received.outcome = ClientOutcome(408, "too slow")
    shown = received.to_dict()
    assert (shown["id"], shown["code"], shown["error"]) == ("r", 408, "too slow")
    assert shown["model"] is shown["backend"] is shown["deployment"] is None
    assert shown["stream"] is False
    assert shown["counted_tokens"] is None
    assert set(shown["usage"].values()) == {None}
    assert shown["observed"]["joules"] is None
    assert received.settle_energy(None).method is None


def test_received_to_parsed_to_answered_says_who_and_what_was_predicted(answered):
    shown = answered.to_dict()
    assert shown["stream"] is True
    assert (shown["model"], shown["deployment"], shown["backend"]) == ("m", "d", "b")
    assert shown["predicted"]["joules"] == 9.0
    assert shown["usage"]["completion_tokens"] is None


def test_planned_to_attempts_alone_blames_the_last_of_them(received):
    received.attempts += [BackendAttempt("m", "b", "silent"), BackendAttempt("n", "c", "silent")]
    assert received.model == ""
    received.blame_last_attempt()
    assert (received.model, received.backend) == ("n", "c")
    assert received.answered is None


def test_answered_is_not_blamed_on_an_attempt(answered):
    answered.attempts.append(BackendAttempt("n", "c", "silent"))
    answered.blame_last_attempt()
    assert answered.model == "m"


def test_answered_to_served_shows_tokens_and_no_joules_yet(served):
    shown = served.to_dict()
    assert shown["usage"]["completion_tokens"] == 4
    assert shown["observed"]["serving_seconds"] == 2.0
    assert shown["observed"]["joules"] is None


def test_served_to_settled_at_once_where_no_meter_is_awaited(served):
    final = []
    served.call_when_final(final.append)
    assert final == [served]
    settled = served.settle_energy(lambda joules, at: joules * 10.0 + at)
    assert (settled.joules, settled.method, settled.co2e_grams) == (5.0, "estimated", 51.0)
    assert served.to_dict()["observed"]["joules"] == 5.0


def test_served_to_settled_once_the_last_meter_has_told(served):
    served.wasted.append(WastedEnergy("n", 1.0))
    of_wasted, of_answer = served.expect_wasted_energy(), served.expect_answer_energy()
    final = []
    served.call_when_final(final.append)
    of_answer(7_000_000, "exclusive")
    assert final == []
    of_wasted(2_000_000, "apportioned")
    assert final == [served]
    settled = served.settle_energy(None)
    assert (settled.joules, settled.method) == (7.0, "exclusive")
    assert settled.wasted == (WastedEnergy("n", 2.0, "apportioned"),)


def test_served_to_settled_as_estimated_where_the_meter_saw_nothing(served):
    told = served.expect_answer_energy()
    served.call_when_final(lambda _: None)
    told(0, "estimated")
    assert served.settle_energy(None)[:2] == (5.0, "estimated")


def test_attempts_to_settled_takes_what_the_last_one_wasted(received):
    received.attempts.append(BackendAttempt("m", "b", "silent"))
    received.wasted += [WastedEnergy("n", 1.0), WastedEnergy("m", 3.0)]
    received.blame_last_attempt()
    settled = received.settle_energy(None)
    assert (settled.joules, settled.method) == (3.0, "estimated")
    assert settled.wasted == (WastedEnergy("n", 1.0),)
