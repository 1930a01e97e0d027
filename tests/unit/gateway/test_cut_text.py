"""Long texts are cut out of their JSON where nothing is cut in two, and counted as if decoded."""

import json
import random
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

import gateway
from gateway.cut_text import (
    LEAST_BYTES,
    CutText,
    cut_slices,
    cut_text,
    decode_pieces,
    join_texts,
    read_text,
)
from gateway.scheduling.text_features import extract_text_features
from gateway.tokens import TokenCounter

LETTERS = ["a", "Z", "0", " ", "  ", "\n", "\t", "\\", '"', "/", "é", "漢", "🙂", "\u2028", "\x01"]


def quote(text, *, escaped):
    return Raw(json.dumps(text, ensure_ascii=escaped).encode())


def draw_text(seed, letters):
    rng = random.Random(seed)
    return "".join(rng.choices(letters, k=rng.randint(70_000, 90_000)))


texts = st.builds(
    draw_text,
    st.integers(0, 2**32),
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=6),
)


@given(texts, st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_escape_and_no_character_is_cut_in_two(text, escaped):
    cut = cut_text(quote(text, escaped=escaped))
    runs = "\\" * 40 in text  # whose parity is not looked for all the way
    for piece in cut_slices(cut.raw, 64, 64):
        if not runs:
            assert decode_pieces([piece]) in text
    assert cut.decode_whole() == text
    assert cut.startswith(text[:3_000])
    assert cut.endswith(text[-1_000:])


@given(texts, st.booleans())
@settings(max_examples=50, deadline=None)
def test_models_of_the_text_read_the_same(text, escaped):
    if escaped:  # two escapes, of one character, are read at less length
        text = text.replace("🙂", "x")
    cut = cut_text(quote(text, escaped=escaped))
    assert extract_text_features(cut) == extract_text_features(text)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'"short"', "short"),
        (b"null", ""),
        (b"12", ""),
        (b'"\\ud800"', ""),
        (b'["' + b"x" * LEAST_BYTES + b'"]', ""),
        (b'"' + b"\\ud800" * LEAST_BYTES + b'"', ""),
        (b'"x' + b"\\\\" * LEAST_BYTES + b'"', "x" + "\\" * LEAST_BYTES),
    ],
)
def test_what_is_no_long_text_is_not_cut(raw, found):
    text = read_text(Raw(raw))
    assert text == found
    assert not isinstance(text, CutText)


def test_a_long_text_that_is_not_to_be_cut_is_whole():
    text = "word " * LEAST_BYTES
    assert read_text(quote(text, escaped=False), cuts=False) == text


def test_texts_of_one_message_are_joined():
    long = "word " * LEAST_BYTES
    cut = read_text(quote(long, escaped=False))
    assert join_texts([cut]) is cut
    assert join_texts(["a", "b"]) == "a\nb"
    joined = join_texts(["a", cut, "b"])
    assert joined == f"a\n{cut}\nb"
    assert joined.decode_whole() == f"a\n{long}\nb"


def source():
    paths = sorted(Path(gateway.__file__).parent.rglob("*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def records():
    rng = random.Random(3)
    rows = [{"id": at, "name": f"user {at}", "share": rng.random()} for at in range(9_000)]
    return json.dumps(rows, indent=1)


def pictographs():
    return "".join(random.Random(4).choices("的一是不了在人有我他🙂🚀", k=200_000))


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("make", [source, records, pictographs])
def test_counts_are_those_of_the_text(counter, make, escaped):
    whole, rng, off = make(), random.Random(7), []
    for _ in range(16):
        size = rng.choice((80_000, 150_000))
        begin = rng.randrange(len(whole) - size)
        text = whole[begin : begin + size]
        true = len(counter.encode(text))
        counted = counter.measure_texts([cut_text(quote(text, escaped=escaped))])
        off.append(counted.tokens / true - 1.0)
    assert abs(fmean(off)) < 0.015
    assert max(map(abs, off)) < 0.1


def test_several_long_texts_share_a_sample(counter):
    words = ("alpha ", "beta gamma ", "1 2 3 ")
    longs = [word * (30_000 * at) for at, word in enumerate(words, 1)]
    cut = [cut_text(quote(text, escaped=False)) for text in longs]
    counted = counter.measure_texts(["the system", cut[0], "short", *cut[1:]], 1)
    true = len(counter.encode("\n".join(["the system", longs[0], "short", *longs[1:]])))
    assert counted.tokens == pytest.approx(true, rel=0.03)
    assert counted.dense_chars == pytest.approx(3 * 90_000, rel=0.03)


def test_what_cannot_be_decoded_is_estimated(counter):
    cut = cut_text(Raw(b'"' + b"x" * 40_000 + b"\\ud800" * 10_000 + b"x" * 40_000 + b'"'))
    estimate = 140_000 / 4
    assert counter.measure_texts([cut]).tokens == estimate
    assert TokenCounter(None, "estimate").measure_texts([cut]).tokens == estimate
    assert cut.decode_whole() == str(cut)
