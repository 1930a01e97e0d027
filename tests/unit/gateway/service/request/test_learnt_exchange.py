"""Lessons between workers: what one has seen all know, by one key and in one file."""

import asyncio
import json
import socket

import pytest

from gateway.scheduling.accuracy_bandit import NO_FEATURES
from gateway.scheduling.decision import MetricWeights, RoutingDecision
from gateway.scheduling.exploration import ExplorationMethod, ExplorationRules
from gateway.scheduling.prefix_holders import PrefixMarks
from gateway.service.request.accuracy_learning import (
    AccuracyLearning,
    AccuracyTrial,
    FeedbackHeard,
)
from gateway.service.request.learnt import Learnt
from gateway.service.request.learnt_exchange import LearntExchange, get_shared_key
from gateway.service.request.lessons import Lesson
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import (
    AnsweredRequest,
    ClientOutcome,
    PlannedRequest,
    ReceivedRequest,
    RequestedName,
)
from tests.unit.gateway.service.request.test_learnt import BASE, OPTION, teach
from tests.waiting import until


@pytest.fixture
async def make_worker(tmp_path):
    made = []

    def make(*, accuracy=False):
        rules = ExplorationRules(ExplorationMethod.THOMPSON, 1.0, 1.0)
        learning = AccuracyLearning(rules, 86_400.0) if accuracy else None
        learnt = Learnt(tmp_path / "learnt.json", get_shared_key(tmp_path), learning)
        exchange = LearntExchange(tmp_path, learnt)
        exchange.start(asyncio.get_running_loop())
        made.append((learnt, exchange))
        return learnt, exchange

    yield make
    for learnt, exchange in made:
        exchange.close(asyncio.get_running_loop())
        learnt.close()
    assert list(tmp_path.glob("*.sock")) == []


async def test_each_knows_what_all_have_seen(make_worker):
    (one, telling), (two, _) = make_worker(), make_worker()
    key = one.hash_application("a system prompt")
    assert two.hash_application("a system prompt") == key
    teach(one, key, count=500)
    telling.send_lessons()
    await until(
        lambda: two.predict_length(OPTION, key, BASE) == one.predict_length(OPTION, key, BASE),
        "the lessons",
    )
    assert two.predict_scale(OPTION) == one.predict_scale(OPTION)
    assert two.take_told() == []  # not told on


async def test_each_knows_who_holds_a_conversation(make_worker):
    (one, telling), (two, _) = make_worker(), make_worker()
    name, marks = ("m", "m"), PrefixMarks((b"turn",))
    lesson = Lesson("", {}, 100, 0, has_media=False, free=True, min_tokens=0, prefix=marks)
    one.observe_prefix(
        (name, "backend"),
        lesson,
        prompt_tokens=100,
        completion_tokens=20,
        cached_tokens=0,
        at_seconds=1.0,
    )
    telling.send_lessons()
    await until(lambda: two.prefixes.is_active, "the lesson")
    assert two.prefixes.find_held_tokens(marks, 2.0) == {name: {"backend": 120}}


async def test_the_socket_of_one_that_is_gone_is_removed(make_worker, tmp_path):
    (one, telling), (_, dead) = make_worker(), make_worker()
    asyncio.get_running_loop().remove_reader(dead._socket)
    dead._socket.close()
    teach(one, "a")
    telling.send_lessons()
    assert len(list(tmp_path.glob("*.sock"))) == 1
    assert telling.lost == 0
    dead._socket = socket.socket()


async def test_one_that_does_not_listen_delays_nobody(make_worker):
    (one, telling), (_, deaf) = make_worker(), make_worker()
    asyncio.get_running_loop().remove_reader(deaf._socket)
    for _ in range(200):
        teach(one, "a", count=10)
        telling.send_lessons()
    assert telling.lost > 0


async def test_what_is_no_lesson_is_left_out(make_worker, caplog):
    (one, telling), (two, hearing) = make_worker(), make_worker()
    for junk in (b"", b"[", b'[["l",1]]', b'[["x"]]', b"\xff"):
        telling._socket.sendto(junk, str(hearing._path))
    teach(one, "a")
    telling.send_lessons()
    await until(lambda: two.predict_length(OPTION, "a", BASE), "what came after")
    assert caplog.text.count("cannot be read") == 5


def test_workers_write_one_file_and_the_next_writes_it_when_the_first_has_gone(tmp_path):
    one, two = (Learnt(tmp_path / "s", get_shared_key(tmp_path)) for _ in range(2))
    teach(one, "a")
    teach(two, "b")
    two.save()
    assert not (tmp_path / "s").exists()
    one.close()
    assert list(json.loads((tmp_path / "s").read_text())["lengths"]["applications"]) == ["a"]
    two.save()
    assert list(json.loads((tmp_path / "s").read_text())["lengths"]["applications"]) == ["b"]
    late = Learnt(tmp_path / "s", get_shared_key(tmp_path))
    assert late.predict_length(OPTION, "b", BASE) == two.predict_length(OPTION, "b", BASE)
    for learnt in (two, late):
        learnt.close()
    assert not (tmp_path / "s.1").exists()


async def test_a_judgement_reaches_who_served_and_then_all(make_worker):
    workers = [make_worker(accuracy=True) for _ in range(3)]
    (one, telling), (two, hearing), (three, _) = workers
    two.accuracy.await_judgement(make_answered("req_1"))
    assert one.hear(FeedbackHeard("req_1", 0.0, 0.0)) is False
    telling.send_lessons()
    await until(lambda: two.accuracy._bandit.judged == {"small": 1}, "the judgement")
    hearing.send_lessons()
    await until(lambda: three.accuracy._bandit.judged == {"small": 1}, "the lesson")
    await until(lambda: one.accuracy._bandit.judged == {"small": 1}, "the lesson, too")
    assert two.hear(FeedbackHeard("req_1", 0.0, 0.0)) is False  # once is enough


def make_answered(name):
    record = RequestRecord(ReceivedRequest(name, 0.0, "chat"), RequestedName("auto", "default"))
    decision = RoutingDecision("relative", MetricWeights(1.0, 0.0, 0.0), (), (), True, "v")
    trial = AccuracyTrial(NO_FEATURES, {"small": 0.7}, "")
    record.planned = PlannedRequest(decision, 0.0, None, None, trial=trial)
    record.answered = AnsweredRequest("small", "small", "b")
    record.outcome = ClientOutcome(200)
    return record
