"""What a finished request teaches: which sums it enters, and what it is compared with."""

import random
from math import log

import pytest
from prometheus_client import CollectorRegistry

from backends.registry import Backend, Deployment
from gateway import profile as profiles
from gateway.config import parse_config
from gateway.scheduling.decision import MetricWeights, RoutingDecision
from gateway.scheduling.regression_terms import TERMS
from gateway.scheduling.sequences import SequenceCounts
from gateway.service.accounting.learning import TrafficLearner
from gateway.service.request.lessons import Lesson
from gateway.service.request.profiles import ActiveProfiles
from gateway.telemetry.drift import DriftMetrics
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.ols_sums import OlsSums
from gateway.telemetry.request_stages import BackendAttempt
from gateway.telemetry.sums_row import PARTS
from tests.prediction_series import name_prediction_series
from tests.scaled_costs import scale_model
from tests.unit.gateway.telemetry.request_records import make_record

CONFIG = """
models:
  - {name: phi-3-mini, context: 4096, backends: [{url: "http://a:1"}]}
  - {name: phi-3-mini, deployment: l4, context: 200, backends: [{url: "http://a:2"}]}
"""
PHI = ("phi-3-mini", "phi-3-mini")
L4 = ("phi-3-mini", "l4")


def scaled(models, factor):
    """The same models, each cost so many times as high."""
    return {name: scale_model(one, factor) for name, one in models.items()}


class World:
    """One that learns, and what it writes into; `shadow` is a factor on all costs."""

    def __init__(self, folder, shadow=None):
        text = CONFIG
        if shadow is not None:
            path = folder / "shadow.json"
            profiles.save_profile(scaled(profiles.load_profile(None).models, shadow), path)
            text += f"shadow: {path}\n"
        self.live_path = folder / "live.json"
        profiles.save_profile(profiles.load_profile(None).models, self.live_path)
        config = parse_config(text + f"profile: {self.live_path}\n", "g.yaml", {})
        deployments = [
            Deployment(
                m.name,
                m.deployment_label,
                m.name,
                [Backend(m.backends[0].root_url)],
                rng=random.Random(0),
            )
            for m in config.models
        ]
        self.registry = CollectorRegistry()
        self.sums = OlsSums((one.model, one.label) for one in deployments)
        drift = DriftMetrics(self.registry, ("phi-3-mini",))
        self.profiles = ActiveProfiles(
            config, deployments, GatewayMetrics(CollectorRegistry()), drift
        )
        self.learning = TrafficLearner(self.sums, drift, self.profiles)

    def answered(self, where=PHI, **more):
        """A whole answer, its joules final, decided by the profile that is live now."""
        live = self.profiles.live
        weights = MetricWeights(0.5, 0.3, 0.2)
        fields = {
            "id": "r", "at": 1.0, "kind": "chat", "requested": "auto", "preset": "default",
            "stream": True, "model": where[0], "deployment": where[1], "code": 200,
            "prompt_tokens": 10, "completion_tokens": 20, "running": 3, "seconds": 9.0,
            "serving_seconds": 1.5, "counted_tokens": 9, "joules": 44.0000004,
            "method": "exclusive", "option": live.by_name[where].option,
            "decision": RoutingDecision("fair-ols", weights, (), (), True, live.profile.version),
        }  # fmt: skip
        record = make_record(**{**fields, **more})
        self.learning.learn_from(record)
        self.learning.drift.publish_metrics()
        return record

    def block(self, part, where=PHI):
        at = [("costs", "seconds"), ("costs", "joules"), ("output", "tokens"), ("prompt", "tokens")]
        place = PARTS.index(at[part])
        values = self.sums.snapshot_sums()[where][place]
        return dict(zip(TERMS[at[part][0]], values, strict=True))

    @property
    def counts(self):
        """Rows of seconds, of joules, of answers' lengths, of prompts' lengths."""
        return tuple(self.block(part)["n"] for part in range(4))

    def metric(self, name, quantity, profile="live"):
        series = name_prediction_series(name, "phi-3-mini", quantity, profile)
        return self.registry.get_sample_value(*series)

    def compared(self, profile="live"):
        """How many were compared in seconds, joules, length."""
        quantities = ("seconds", "joules", "output_tokens")
        return tuple(self.metric("requests_total", one, profile) for one in quantities)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_a_whole_answer_enters_every_block(world):
    world.answered()
    assert world.counts == (1, 1, 1, 1)
    seconds, joules = world.block(0), world.block(1)
    assert (seconds["u"], seconds["o"], seconds["z"]) == (10, 20, 20 * 3 * 10**6)
    # Seconds are those at the backend, not the client's.
    assert (seconds["y"], joules["y"]) == (1_500_000, 44_000_000)
    assert joules["z"] == 20 * 10**9 // 4
    length = round(log(20) * 1e9)
    assert {k: v for k, v in world.block(2).items() if v} == {"n": 1, "l": length, "l2": length**2}
    prompt = {term: value for term, value in world.block(3).items() if value}
    assert prompt == {"n": 1, "e": 9, "i": 10, "ei": 90, "e2": 81, "i2": 100}
    assert world.compared() == (1, 1, 1)


@pytest.mark.parametrize(
    "lacking",
    [
        {"code": 499},  # the client left
        {"code": 503, "error": "broke off"},
        {"code": 0},
        {"prompt_tokens": None},
        {"prompt_tokens": 0},
        {"completion_tokens": None},
        {"completion_tokens": 0},
        {"serving_seconds": None},
        {"option": None, "deployment": ""},  # nobody answered
    ],
)
def test_what_is_no_whole_answer_teaches_nothing(world, lacking):
    record = world.answered(**lacking)
    assert world.counts == (0, 0, 0, 0)
    assert world.compared() == (0, 0, 0)
    assert record.compared == (None, None)


@pytest.mark.parametrize(
    ("method", "joules", "learnt"),
    [
        ("exclusive", 44.0, 1),
        ("apportioned", 44.0, 1),
        ("coarse", 44.0, 0),
        ("estimated", 44.0, 0),
        (None, None, 0),
    ],
)
def test_only_joules_measured_for_the_request_are_learnt(world, method, joules, learnt):
    world.answered(method=method, joules=joules)
    assert world.counts == (1, learnt, 1, 1)
    assert world.compared() == (1, learnt, 1)


@pytest.mark.parametrize(
    ("where", "asked", "whole"),
    [
        (PHI, None, 1),
        (PHI, 21, 1),
        (PHI, 20, 0),
        (PHI, 5, 0),  # a backend may count the end token too
        (L4, None, 1),
    ],
)
def test_an_answer_that_was_cut_says_nothing_of_length(world, where, asked, whole):
    world.answered(where, asked_tokens=asked)
    assert world.block(2, where)["n"] == whole
    assert world.block(0, where)["n"] == world.block(3, where)["n"] == 1
    assert world.compared() == (1, 1, whole)


def test_an_answer_that_filled_the_context_was_cut(world):
    world.answered(L4, prompt_tokens=150, completion_tokens=50)
    world.answered(L4, prompt_tokens=150, completion_tokens=49)
    assert world.block(2, L4)["l"] == round(log(49) * 1e9)
    assert world.block(0, L4)["n"] == 2


def test_after_a_failure_it_teaches_of_who_answered_and_of_that_attempt_alone(world):
    attempts = [BackendAttempt(*PHI, "silent"), BackendAttempt("phi-3-mini", "a:2", None)]
    world.answered(L4, attempts=attempts, seconds=121.5, serving_seconds=1.5)
    assert world.counts == (0, 0, 0, 0)
    assert world.block(0, L4)["y"] == 1_500_000


def test_a_prompt_that_was_not_counted_is_left_out_of_the_ratio(world):
    record = world.answered(counted_tokens=None)
    assert world.counts == (1, 1, 1, 0)
    option = world.profiles.live.by_name[PHI].option
    assert record.compared.live.output_tokens == option.output.predict_output_tokens(10, 4096)


def test_a_cost_is_compared_at_the_tokens_and_the_load_there_were(world):
    record = world.answered(completion_tokens=700, running=5)
    option = world.profiles.live.by_name[PHI].option
    assert record.compared.live == (
        world.profiles.live.profile.version,
        option.seconds.predict_cost(10, 700, 5),
        option.joules.predict_cost(10, 700, 5),
        option.output.predict_output_tokens(9, 4096),
    )
    assert world.metric("predicted_total", "seconds") == record.compared.live.seconds
    assert world.metric("observed_total", "seconds") == 1.5
    assert world.metric("absolute_error_total", "seconds") == record.compared.live.seconds - 1.5
    assert world.metric("observed_total", "output_tokens") == 700
    assert world.metric("predicted_total", "output_tokens") == record.compared.live.output_tokens


def test_a_prompt_is_as_long_as_the_profile_counts_it(world):
    lesson = Lesson("", {}, 900, 4000, has_media=False, free=True, min_tokens=0)
    record = world.answered(counted_tokens=900, lesson=lesson)
    option = world.profiles.live.by_name[PHI].option
    assert option.scale.estimate(900, 4000) > option.scale.estimate(900)
    expected = option.output.predict_output_tokens(option.scale.estimate(900, 4000), 4096)
    assert record.compared.live.output_tokens == expected
    assert expected != option.output.predict_output_tokens(900, 4096)


@pytest.mark.parametrize(("asked", "expected"), [(None, 44), (30, 24), (4000, 44)])
def test_the_expected_length_keeps_within_what_was_asked(world, asked, expected):
    assert world.answered(asked_tokens=asked).compared.live.output_tokens == expected


def test_a_request_is_compared_with_the_profile_that_decided_it(world):
    before = world.profiles.live
    decided = world.answered()
    profiles.save_profile(scaled(before.profile.models, 2.0), world.live_path)
    world.profiles.reload_profiles()
    after = world.profiles.live.profile.version
    assert after != before.profile.version
    # It was decided before the profile changed, and is over only now.
    late = world.answered(option=before.by_name[PHI].option, decision=decided.planned.decision)
    assert late.compared.live == decided.compared.live
    assert late.compared.live.profile_version == before.profile.version
    # What the old one was off by is no error, and no drift, of the new one.
    assert world.compared() == (1, 1, 1)
    fresh = world.answered()
    assert world.compared() == (2, 2, 2)
    assert fresh.compared.live.profile_version == after
    assert fresh.compared.live.joules == pytest.approx(2.0 * decided.compared.live.joules)


def test_several_answers_to_one_request_teach_nothing(world):
    world.answered(sequences=SequenceCounts(answers=2))
    assert world.counts == (0, 0, 0, 0)


def test_a_caller_who_was_sent_without_a_decision_is_learnt_and_not_compared(world):
    assert world.answered(decision=None, counted_tokens=None).compared.live is None
    assert world.counts == (1, 1, 1, 0)
    assert world.compared() == (0, 0, 0)


def test_digits_and_marks_of_a_prompt_stand_beside_its_count(world):
    lesson = Lesson("", {}, 9, 5, has_media=False, free=True, min_tokens=0)
    world.answered(lesson=lesson)
    assert world.block(3) == {
        "n": 1, "e": 9, "i": 10, "ei": 90, "e2": 81, "i2": 100, "d": 5, "ed": 45, "d2": 25, "di": 50
    }  # fmt: skip


def test_a_prompt_that_no_count_of_its_text_explains_tells_nothing_of_tokens(world):
    """An image, or tokens that were given as numbers."""
    lesson = Lesson("", {}, 9, 5, has_media=True, free=True, min_tokens=0)
    world.answered(lesson=lesson)
    assert world.counts == (1, 1, 1, 0)


def test_both_profiles_are_compared_with_the_same_request(tmp_path):
    world = World(tmp_path, shadow=3.0)
    record = world.answered()
    assert record.compared.shadow.profile_version == world.profiles.shadow.profile.version
    assert record.compared.shadow.profile_version != record.compared.live.profile_version
    assert record.compared.shadow.seconds == pytest.approx(3.0 * record.compared.live.seconds)
    assert record.compared.shadow.joules == pytest.approx(3.0 * record.compared.live.joules)
    assert world.compared("live") == world.compared("shadow") == (1, 1, 1)
    for quantity, observed in (("seconds", 1.5), ("joules", 44.0), ("output_tokens", 20)):
        for profile in ("live", "shadow"):
            assert world.metric("observed_total", quantity, profile) == pytest.approx(observed)
    assert world.metric("predicted_total", "joules", "shadow") == record.compared.shadow.joules
    # The rows are entered once, whoever predicts them.
    assert world.counts == (1, 1, 1, 1)


def test_without_a_shadow_nothing_is_said_of_one(world):
    assert world.answered().compared.shadow is None
    assert world.compared("shadow") == (0, 0, 0)
    assert world.answered().to_dict()["compared"]["shadow"] is None


def test_the_load_is_the_mean_over_the_request_and_cached_tokens_are_left_out(world):
    world.answered(mean_running=2.0, harmonic_running=1.5, cached_tokens=8)
    seconds, joules = world.block(0), world.block(1)
    assert (seconds["u"], seconds["io"]) == (2, 200)
    assert seconds["z"] == 20 * 2_000_000
    assert joules["z"] == 8 * 10**9
