"""Accuracy by prompt: heads, kinds, calibration, how far it fades where nothing is known."""

import math
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling.prompt_accuracy import (
    AccuracyHead,
    PromptAccuracy,
    PromptKinds,
)
from gateway.scheduling.score_calibration import JointCalibration, ScoreCalibration
from gateway.scheduling.text_features import (
    FORMS,
    MOST_CHARS,
    WORD_BUCKETS,
    extract_text_features,
    hash_word,
)

LINE = ScoreCalibration((0.0, 1.0), (0.0, 1.0))
NOTHING = (0.0,) * len(FORMS)


def make_words(weights):
    found = array("f", bytes(4 * WORD_BUCKETS))
    for word, weight in weights.items():
        found[hash_word(word)] = weight
    return found


def make_model(heads, known=(), mix=1.0, kinds=None):
    variance = array("f", [1.0]) * WORD_BUCKETS
    for word in known:
        variance[hash_word(word)] = 0.05
    return PromptAccuracy(
        heads, NOTHING, (1.0,) * len(FORMS), variance, familiar=0.2, noise=0.4, mix=mix, kinds=kinds
    )


def make_head(weights, bias=0.5, kinds=()):
    return AccuracyHead(bias, make_words(weights), NOTHING, kinds, LINE)


def test_a_known_word_moves_the_model_that_has_its_weight():
    model = make_model(
        {"small": make_head({"integral": -0.4}), "large": make_head({})},
        known=["integral", "of", "the"],
    )
    reading = model.read(extract_text_features("The integral of the integral"))
    assert reading.known == 1.0
    small = model.predict("small", reading, 0.7)
    assert small.value == pytest.approx(0.5 - 0.4 / math.sqrt(3))
    assert model.predict("large", reading, 0.8).value == pytest.approx(0.5)


def test_where_nothing_is_known_the_static_share_stands_and_the_bound_is_low():
    model = make_model({"small": make_head({"integral": -0.4})}, known=["integral"])
    reading = model.read(extract_text_features("xyzzy plugh frobnicate"))
    assert (reading.distance, reading.known) == (1.0, 0.0)
    value, lower = model.predict("small", reading, 0.7, z=1.0)
    assert value == 0.7
    assert lower == pytest.approx(0.3)
    assert model.predict("unheard of", reading, 0.6) == (0.6, 0.6)


def test_without_words_and_form_all_else_is_the_same():
    text = "What is 2 + 2?\nB. four"
    whole = extract_text_features(text)
    assert len(whole.form) == len(FORMS)
    assert extract_text_features(text, with_form=False) == whole._replace(words=(), form=())


def test_a_system_prompt_counts_less_than_the_user():
    model = make_model({"small": make_head({"poem": 0.4})}, known=["poem", "hello"])
    user = model.read(extract_text_features("poem"), extract_text_features("hello"))
    system = model.read(extract_text_features("hello"), extract_text_features("poem"))
    raised = [model.predict("small", one, 0.5).value for one in (user, system)]
    assert raised[0] > raised[1] > 0.5


def test_kinds_are_told_apart_by_words_and_bring_their_table():
    code, law = hash_word("python"), hash_word("court")
    kinds = PromptKinds(
        ("code", "law"), (0.0, 0.0), (0.05, 0.05), {code: bytes([255, 1]), law: bytes([1, 255])}
    )
    head = make_head({}, kinds=(0.9, 0.2))
    model = make_model({"small": head}, known=["python", "court"], mix=0.0, kinds=kinds)
    asked = [model.read(extract_text_features(text)) for text in ("Python!", "court", "python")]
    values = [model.predict("small", one, 0.5).value for one in asked]
    assert values[0] == values[2] == pytest.approx(0.9, abs=1e-4)
    assert values[1] == pytest.approx(0.2, abs=1e-4)
    assert asked[0].kinds[0] > 0.99


@given(st.lists(st.integers(0, WORD_BUCKETS - 1), unique=True, max_size=60), st.data())
def test_one_sum_over_packed_fields_is_each_kinds_own_sum(words, data):
    size = data.draw(st.integers(1, 9))
    rows = {
        word: bytes(data.draw(st.lists(st.integers(0, 255), min_size=size, max_size=size)))
        for word in words
    }
    kinds = PromptKinds(tuple(map(str, range(size))), (0.1,) * size, (0.01,) * size, rows)
    found = kinds.classify(tuple(words), 2.0)
    values = [0.1 + 0.01 * sum(row[at] - 128 for row in rows.values()) / 2 for at in range(size)]
    whole = sum(math.exp(value) for value in values)
    assert found == pytest.approx([math.exp(value) / whole for value in values])


@given(st.floats(-5, 5))
def test_a_calibration_is_a_line_through_its_points_and_flat_beyond(score):
    line = ScoreCalibration((-1.0, 0.0, 2.0), (0.1, 0.5, 0.9))
    found = line.apply(score)
    assert 0.1 <= found <= 0.9
    if score <= -1.0:
        assert found == 0.1
    assert line.apply(1.0) == pytest.approx(0.7)


def test_a_joint_calibration_reads_a_score_beside_the_other_models():
    joint = JointCalibration((0.1, 2.0, 3.0, -1.0, 0.5, -2.0), (-0.3, 0.3), (0.2, 0.9))
    u, v = 0.2, 0.6
    logit = 0.1 + 2 * u + 3 * v - u * u + 0.5 * u * v - 2 * v * v
    assert joint.apply(0.8, 0.6) == pytest.approx(1 / (1 + math.exp(-logit)))
    assert joint.apply(5.0, 0.6) == pytest.approx(joint.apply(0.9, 0.6))
    assert joint.apply(-9.0, -8.0) == pytest.approx(joint.apply(-0.1, 0.2))
    assert JointCalibration((-1e6, 0, 0, 0, 0, 0), (0, 0), (0, 0)).apply(0, 0) < 1e-300
    assert JointCalibration((1e6, 0, 0, 0, 0, 0), (0, 0), (0, 0)).apply(0, 0) == 1.0
    # The same score of a model means more where the others' are worse.
    rising = JointCalibration((0.0, 4.0, 0.0, 0.0, 0.0, 0.0), (-1.0, 1.0), (0.0, 1.0))
    heads = {
        name: replace(make_head(words), calibration=rising)
        for name, words in (("small", {"integral": -0.4}), ("large", {}))
    }
    model = make_model(heads, known=["integral", "hello"])
    maths, chat = (model.read(extract_text_features(text)) for text in ("integral", "hello"))
    assert maths.scores == pytest.approx({"small": 0.1, "large": 0.5})
    assert maths.middle == pytest.approx(0.3)
    assert model.predict("large", chat, 0.5).value == 0.5
    assert model.predict("large", maths, 0.5).value == pytest.approx(1 / (1 + math.exp(-0.8)))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="buckets must divide"):
        PromptAccuracy({}, NOTHING, NOTHING, array("f", [1.0] * 3), 0.1, 0.1, 1.0)
    with pytest.raises(ValueError, match="a share for each of 0 kinds"):
        make_model({"small": make_head({}, kinds=(0.5,))})
    with pytest.raises(ValueError, match="one byte per name"):
        PromptKinds(("a",), (0.0,), (1.0,), {1: b"12"})


def test_one_pass_gives_both_grains_of_words_and_reads_both_ends_of_a_long_text():
    text = "start " + "filler " * 3000 + " finish"
    found = extract_text_features(text)
    assert hash_word("start") in found.words
    assert hash_word("finish") in found.words
    assert set(found.buckets) == {word % 4096 for word in found.words}
    middle = "a " * MOST_CHARS + "middle " + "b " * MOST_CHARS
    assert hash_word("middle") not in extract_text_features(middle).words
    assert len(found.form) == len(FORMS)


def test_the_form_of_a_prompt_is_seen():
    told = dict(zip(FORMS, extract_text_features("Which?\nA. 1\nB. 2\nC. $3").form, strict=True))
    assert told["has_options"] == told["asks"] == told["asks_what"] == told["has_dollar"] == 1.0
    assert told["has_code"] == told["other_script"] == 0.0
    told = dict(zip(FORMS, extract_text_features("```f();``` привет").form, strict=True))
    assert told["has_code"] == 1.0
    assert told["other_script"] > 0.4
