"""The learner's file, and the keyed hash of an application."""

import json

import pytest
from msgspec import Raw

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.candidate import DeploymentOption
from gateway.scheduling.cost import CostFunction, CostQuantity, RegressionForm
from gateway.scheduling.features import RequestFeatures
from gateway.service.request.application import describe_application, hash_application
from gateway.service.request.learnt import Learnt
from gateway.service.request.lessons import make_lesson
from tests.unit.gateway.service.request.test_body_features import chat, measured, user

BASE = AnswerLength(3.8, 0.8)
OPTION = DeploymentOption(
    "m", "m", 0.7,
    CostFunction(CostQuantity.SECONDS, RegressionForm.ADDITIVE, (0.0, 0.0, 0.1)),
    CostFunction(CostQuantity.JOULES, RegressionForm.ADDITIVE, (0.0, 0.0, 1.0)),
    context=4096,
)  # fmt: skip


def teach(learnt, application, tokens=400, count=20, **features):
    lesson = make_lesson(
        RequestFeatures(100, **features), application, {OPTION.name: BASE}, has_media=False
    )
    for turn in range(count):
        learnt.observe(
            OPTION, lesson,
            prompt_tokens=120, completion_tokens=tokens, cut=False, at_seconds=1.8e9 + turn,
        )  # fmt: skip


def test_what_was_learnt_is_there_after_a_restart(tmp_path):
    learnt = Learnt(tmp_path / "state.json")
    key = learnt.hash_application("a system prompt")
    teach(learnt, key)
    before = learnt.predict_length(OPTION, key, BASE), learnt.predict_scale(OPTION)
    learnt.close()
    again = Learnt(tmp_path / "state.json")
    assert again.hash_application("a system prompt") == key
    assert (again.predict_length(OPTION, key, BASE), again.predict_scale(OPTION)) == before
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0
    again.close()


def test_two_workers_keep_a_file_each(tmp_path):
    one, two = Learnt(tmp_path / "s"), Learnt(tmp_path / "s")
    for learnt in (one, two):
        teach(learnt, "a")
        learnt.close()
    assert {path.name for path in tmp_path.iterdir()} >= {"s", "s.1"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "key": 3}'])
def test_a_file_that_is_none_is_put_aside(tmp_path, text):
    path = tmp_path / "state.json"
    path.write_text(text)
    learnt = Learnt(path)
    assert learnt.predict_length(OPTION, "a", BASE) is None
    teach(learnt, "a")
    learnt.close()
    assert (tmp_path / "state.json.bad").read_text() == text
    assert json.loads(path.read_text())["version"] == 1


def test_a_folder_that_cannot_be_written_costs_a_log_line(tmp_path, caplog):
    learnt = Learnt(tmp_path / "nowhere" / "state.json")
    teach(learnt, "a")
    learnt.close()
    assert "a restart will lose it" in caplog.text


def test_lengths_that_the_model_did_not_choose_teach_nothing():
    learnt = Learnt()
    teach(learnt, "a", ignore_eos=True)
    teach(learnt, "a", min_tokens=400)
    assert learnt.predict_length(OPTION, "a", BASE) is None
    teach(learnt, "a", min_tokens=10)
    assert learnt.predict_length(OPTION, "a", BASE).source == "application"


def test_an_application_is_its_system_prompt_tools_and_format():
    def described(*messages, **more):
        return describe(chat(*messages, **more))

    def describe(body):
        from gateway.service.request.body import decode_members, parse_request
        from gateway.service.request.endpoint import EndpointKind
        from gateway.service.request.extraction import extract_features
        from tests.unit.gateway.service.request.test_body_features import Letters

        ask = parse_request(EndpointKind.CHAT, decode_members(body))
        extract_features(ask, Letters())
        return ask.application

    system = {"role": "system", "content": "Be brief."}
    tool = {"type": "function", "function": {"name": "weather"}}
    base = described(system, user("one"))
    assert described(system, user("two"), temperature=0) == base
    others = [
        described(user("one")),
        described(system, user("one"), tools=[tool]),
        described(system, user("one"), response_format={"type": "json_object"}),
        described({"role": "developer", "content": "Be long."}, user("one")),
    ]
    assert len({base, *others}) == 5


def test_the_hash_needs_the_key():
    text = describe_application({}, "secret system prompt")
    one, two = (hash_application(text, key) for key in (b"k" * 32, b"l" * 32))
    assert one != two
    assert len(one) == 24
    assert hash_application(text, b"k" * 32) == one


def test_what_a_request_says_of_its_answers():
    got = measured(chat(user("hi"), n=3, min_tokens=5, ignore_eos=True, max_tokens=9))
    assert (got.answers, got.min_tokens, got.ignore_eos, got.sequences) == (3, 5, True, 3)


def test_a_long_format_is_cut_within_a_letter():
    wanted = {"response_format": Raw(b'"' + b"a" * 16_382 + "é".encode() + b'"')}
    assert describe_application(wanted, "").startswith('\0"aaa')
