"""Counting by words gives what encoding the whole text gives, whatever was learnt before."""

import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import word_tokens
from gateway.word_tokens import WordTokens
from tests.shipped_counter import load_shipped_counter

COUNTER = load_shipped_counter()
ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(COUNTER.source == "estimate", reason="no vocabulary is installed")


@pytest.fixture(scope="module")
def encode():
    return COUNTER.encode


SPACES = [" ", "  ", "   ", "\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "\x0b", "\x1c"]
WORDS = ["a", "Word", "isn't", "I'LL", "12", "3456", ".", "...", '("', "):", "'s", "_x", "-"]
OTHERS = ["ü", "漢字", "👩", "e\u0301"]
PIECES = st.sampled_from(SPACES + WORDS + OTHERS)
PLAIN = st.sampled_from([" ", " ", "  ", "\n", *WORDS])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join) | st.lists(PLAIN, max_size=40).map("".join))
def test_any_text_has_as_many_tokens_as_encoding_it_gives(text):
    words = WordTokens(COUNTER.encode)
    wanted = len(COUNTER.encode(text))
    assert words.count_tokens(text) == wanted
    # Some words are known by now, then all of them.
    assert words.count_tokens(text) == words.count_tokens(text) == wanted


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "gateway/tokens.py", "pyproject.toml"])
def test_real_texts_too_with_words_learnt_from_one_another(encode, name):
    words = WordTokens(encode)
    text = (ROOT / name).read_text(encoding="utf-8")
    rng = random.Random(1)
    for _ in range(60):
        start = rng.randrange(len(text))
        part = text[start : start + rng.randrange(3000)]
        assert words.count_tokens(part) == len(encode(part))


def test_what_is_kept_is_bounded(encode, monkeypatch):
    monkeypatch.setattr(word_tokens, "MOST_WORDS", 50)
    words = WordTokens(encode)
    for turn in range(100):
        text = " ".join(f"w{turn}x{at}" for at in range(9))
        assert words.count_tokens(text) == len(encode(text))
        assert len(words._words) + len(words._words._older) <= 2 * (50 // 2 + 9 + 2)


def test_words_met_again_are_kept_when_others_are_forgotten(encode, monkeypatch):
    monkeypatch.setattr(word_tokens, "MOST_WORDS", 40)
    words = WordTokens(encode)
    often = " the cat sat"
    for turn in range(60):
        new = " ".join(f"w{turn}x{at}" for at in range(4))
        assert words.count_tokens(f"{new}{often}") == len(encode(f"{new}{often}"))
    assert {"the", "cat", "sat"} <= words._words.keys() | words._words._older.keys()


LINES = st.sampled_from(
    ["\n", "\n", "\n\n", "\n  ", "\n    ", " ", "  ", "\n ", *WORDS, "ü", "…", "\0"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=60).map("".join))
@example("......\n  ")
def test_lines_have_as_many_tokens_as_encoding_them_gives(text):
    words = WordTokens(COUNTER.encode)
    wanted = len(COUNTER.encode(text))
    assert [words.count_tokens(text) for _ in range(3)] == [wanted] * 3


def test_a_text_of_very_many_new_lines_is_encoded_at_once(encode):
    calls = []

    def counted(text):
        calls.append(text)
        return encode(text)

    text = "\n".join(f"l{at}x" for at in range(1000))
    words = WordTokens(counted)
    assert words.count_tokens(text) == len(encode(text))
    assert calls[-1] == text
    assert len(calls) < 1000 // 7
    # Learnt a few at a time all the same.
    for _ in range(80):
        assert words.count_tokens(text) == len(encode(text))
    calls.clear()
    words.count_tokens(text)
    assert calls == []


def test_a_text_of_known_words_is_not_encoded(encode):
    calls = []

    def counted(text):
        calls.append(text)
        return encode(text)

    words = WordTokens(counted)
    text = " the cat sat on the mat"
    for _ in range(10):
        words.count_tokens(text)
    assert calls
    calls.clear()
    assert words.count_tokens(text) == len(encode(text))
    assert calls == []
