"""Features of a text: the fast way finds what the plain description of them says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scheduling import text_features
from gateway.scheduling.text_features import (
    BUCKETS,
    FORMS,
    add_weights,
    extract_text_features,
    hash_word,
    split_words,
)

OPTIONS = ("\nB.", "\nB)", "\n(B)", "(B) ", " B) ", "\nb)")
CODE = ("```", "();", "return ", "def ", "#include", "</")
SPACES = [" ", "\n", "\u00a0", "\u3000", "\x1c", "\x85"]
WORDS = ["a", "Word", "WHY", "what", "É", "İ", "ß", "漢字", "\ud800", "7"]
MARKS = [*"?$_()Bb.`;</#-", "__", *OPTIONS, *CODE]
PIECES = st.sampled_from([*SPACES, *WORDS, *MARKS])


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_the_words_are_those_of_the_plain_description_each_once_in_the_order_of_the_text(text):
    words = split_words(text)
    found = extract_text_features(text)
    assert found.words == tuple(dict.fromkeys(map(hash_word, words)))
    assert found.buckets == tuple(dict.fromkeys(word % BUCKETS for word in found.words))
    assert found.shape[0] == math.log1p(len(words))
    form = dict(zip(FORMS, found.form, strict=True))
    assert form["has_options"] == any(mark in text for mark in OPTIONS)
    assert form["has_code"] == any(mark in text for mark in CODE)
    assert form["has_blank"] == ("__" in text)
    asked = set(words)
    assert form["asks_what"] or not asked & {"what", "which", "who", "when", "where"}
    assert form["asks_to_reason"] or not asked & {"how", "why", "prove", "calculate", "many"}


def test_words_that_were_forgotten_are_hashed_anew(monkeypatch):
    monkeypatch.setattr(text_features, "_MOST_CACHED", 20)
    for turn in range(50):
        text = " ".join(f"w{turn}x{at}" for at in range(9))
        assert set(extract_text_features(text).words) == set(map(hash_word, text.split()))
        assert len(text_features._fine) <= 20


@pytest.mark.parametrize("buckets", [(), (2,), (2, 0), (2, 0, 1)])
def test_weights_add_up(buckets):
    weights = (0.25, 0.5, 1.0)
    assert add_weights(weights, buckets) == sum(weights[at] for at in buckets)
