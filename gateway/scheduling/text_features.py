"""A prompt's text as numbers, in one pass that every model of the text shares.

Rules: words are what stands between white space and ASCII punctuation, lower case, each counted
once; a word is its CRC-32 in `WORD_BUCKETS` buckets, the same on every machine, and modulo
`BUCKETS` for models of answer lengths. What is beyond `MOST_CHARS` is looked at from both ends
only, so that a long prompt costs no more than a short one.
"""

import math
from typing import NamedTuple, cast
from zlib import crc32

BUCKETS = 4096
WORD_BUCKETS = 1 << 16
MOST_CHARS = 8_192
SHAPES = ("log_words", "has_lines", "asks", "has_digits")
"""Names of the features beside the words for answer lengths, in order."""
FORMS = (
    "log_chars", "log_lines", "asks", "has_digits", "digit_share", "symbol_share", "has_options",
    "has_code", "has_blank", "has_dollar", "asks_to_reason", "asks_what", "chars_per_word",
    "other_script",
)  # fmt: skip
"""Names of the features beside the words for accuracy, in order."""

_TAIL = 2_048
_MOST_CACHED = 50_000
_PUNCTUATION = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'
_TO_SPACES = str.maketrans(_PUNCTUATION, " " * len(_PUNCTUATION))
_DIGITS = b"0123456789"
_SYMBOLS = b"+-*/=^()<>"
_HIGH = bytes(range(128, 256))
_OPTIONS = ("\nB.", "\nB)", "\n(B)", "(B) ", " B) ", "\nb)")
_CODE = ("```", "();", "return ", "def ", "#include", "</")
_buckets: dict[str, int] = {}


def hash_word(word: str) -> int:
    """Return the bucket of a word that is lower case already."""
    return crc32(word.encode("utf-8", "replace")) % WORD_BUCKETS


_REASONS = frozenset(
    map(hash_word, ("how", "why", "explain", "prove", "calculate", "compute", "find", "many"))
)
_WHATS = frozenset(map(hash_word, ("what", "which", "who", "when", "where")))


class TextFeatures(NamedTuple):
    """The buckets of a text's words, each once, and its shape (in the order of `SHAPES`).

    `words` are the words' finer buckets, and `form` what accuracy looks at beside them (in the
    order of `FORMS`).
    """

    buckets: tuple[int, ...]
    shape: tuple[float, float, float, float]
    words: tuple[int, ...] = ()
    form: tuple[float, ...] = ()


def split_words(text: str) -> list[str]:
    """Return the words of a text that are looked at, in order, lower case."""
    return cut_middle(text).lower().translate(_TO_SPACES).split()


def cut_middle(text: str) -> str:
    """Return both ends of a long text; a short one as it is."""
    if len(text) > MOST_CHARS:
        return f"{text[: MOST_CHARS - _TAIL]} {text[-_TAIL:]}"
    return text


def extract_text_features(text: str, *, with_form: bool = True) -> TextFeatures:
    """Return the features of a text; a bucket appears once however many words fall into it.

    Without the form, which models of answer lengths do not read, it takes about half as long.
    """
    text = cut_middle(text)
    words = text.lower().translate(_TO_SPACES).split()
    found = _hash_words(set(words))
    raw = text.encode("utf-8", "replace")
    digits = len(raw) - len(raw.translate(None, _DIGITS))
    shape = (
        math.log1p(len(words)),
        float("\n" in text),
        float("?" in text),
        float(digits > 0),
    )
    coarse = set(map(_COARSE, found))
    return TextFeatures(
        tuple(sorted(coarse)),
        shape,
        tuple(sorted(found)),
        _describe_form(text, raw, digits, found, len(words)) if with_form else (),
    )


_COARSE = (BUCKETS - 1).__and__


def _hash_words(words: set[str]) -> set[int]:
    """Return the words' buckets; those met before are looked up, all at once."""
    known = _buckets
    found = set(map(known.get, words))
    if None in found:
        for word in words:
            if word not in known:
                if len(known) >= _MOST_CACHED:
                    known.clear()
                found.add(known.setdefault(word, hash_word(word)))
        found.discard(None)
    return cast("set[int]", found)


def _describe_form(
    text: str, raw: bytes, digits: int, found: set[int], words: int
) -> tuple[float, ...]:
    size = max(1, len(raw))
    letters = len(raw.translate(None, b" \t\r\n"))
    return (
        math.log1p(len(raw)),
        math.log1p(raw.count(b"\n")),
        float(b"?" in raw),
        float(digits > 0),
        digits / size,
        (len(raw) - len(raw.translate(None, _SYMBOLS))) / size,
        float(any(map(text.__contains__, _OPTIONS))),
        float(any(map(text.__contains__, _CODE))),
        float("__" in text),
        float("$" in text),
        float(not _REASONS.isdisjoint(found)),
        float(not _WHATS.isdisjoint(found)),
        letters / max(1, words),
        0.0 if text.isascii() else 1.0 - len(raw.translate(None, _HIGH)) / size,
    )
