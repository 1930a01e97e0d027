"""A prompt's text as numbers, in one pass that every model of the text shares.

Rules: words are what stands between white space and ASCII punctuation, lower case, each counted
once; a word is its CRC-32 in `BUCKETS` buckets, the same on every machine. What is beyond
`MOST_CHARS` is looked at from both ends only, so that a long prompt costs no more than a short one.
"""

import math
from typing import NamedTuple
from zlib import crc32

BUCKETS = 4096
MOST_CHARS = 8_192
SHAPES = ("log_words", "has_lines", "asks", "has_digits")
"""Names of the features beside the words, in order."""

_TAIL = 2_048
_MOST_CACHED = 50_000
_PUNCTUATION = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'
_TO_SPACES = str.maketrans(_PUNCTUATION, " " * len(_PUNCTUATION))
_DIGITS = frozenset("0123456789")
_buckets: dict[str, int] = {}


class TextFeatures(NamedTuple):
    """The buckets of a text's words, each once, and its shape (in the order of `SHAPES`)."""

    buckets: tuple[int, ...]
    shape: tuple[float, float, float, float]


def extract_text_features(text: str) -> TextFeatures:
    """Return the features of a text; a bucket appears once however many words fall into it."""
    if len(text) > MOST_CHARS:
        text = f"{text[: MOST_CHARS - _TAIL]} {text[-_TAIL:]}"
    words = text.lower().translate(_TO_SPACES).split()
    found: set[int] = set()
    known = _buckets
    for word in words:
        bucket = known.get(word)
        if bucket is None:
            if len(known) >= _MOST_CACHED:
                known.clear()
            bucket = known[word] = crc32(word.encode("utf-8", "replace")) % BUCKETS
        found.add(bucket)
    shape = (
        math.log1p(len(words)),
        float("\n" in text),
        float("?" in text),
        float(not _DIGITS.isdisjoint(text)),
    )
    return TextFeatures(tuple(sorted(found)), shape)
