"""A prompt's text as numbers, in one pass that every model of the text shares.

Rules: words are what stands between white space and ASCII punctuation, lower case, each counted
once; a word is its CRC-32 in `WORD_BUCKETS` buckets, the same on every machine, and modulo
`BUCKETS` for models of answer lengths. What is beyond `MOST_CHARS` is looked at from both ends
only, so that a long prompt costs no more than a short one.
"""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import NamedTuple
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
# str.split() takes these four for white space as well, bytes.split() does not.
_APART = (_PUNCTUATION + "\x1c\x1d\x1e\x1f").encode()
_BYTES_TO_SPACES = bytes.maketrans(_APART, b" " * len(_APART))
_DIGITS = b"0123456789"
_SYMBOLS = b"+-*/=^()<>"
_HIGH = bytes(range(128, 256))
# A mark, and its rarest character: looking for one character costs next to nothing.
_OPTIONS = (
    ("B", "\nB."), ("B", "\nB)"), ("B", "\n(B)"), ("B", "(B) "), ("B", " B) "), (")", "\nb)"),
)  # fmt: skip
_CODE = (
    ("`", "```"), (";", "();"), ("n", "return "), ("d", "def "), ("#", "#include"), ("<", "</"),
)  # fmt: skip
_BLANK = (("_", "__"),)


def hash_word(word: str) -> int:
    """Return the bucket of a word that is lower case already."""
    return crc32(word.encode("utf-8", "replace")) % WORD_BUCKETS


_REASONS = frozenset(
    map(hash_word, ("how", "why", "explain", "prove", "calculate", "compute", "find", "many"))
)
_WHATS = frozenset(map(hash_word, ("what", "which", "who", "when", "where")))


class TextFeatures(NamedTuple):
    """The buckets of a text's words, each once, and its shape (in the order of `SHAPES`).

    Buckets stand in the order of the text, so that sums are the same on every machine. `words` are
    the words' finer buckets, and `form` what accuracy looks at beside them (in the
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

    Without `words` and `form`, which models of answer lengths do not read, it takes half the time.
    """
    text = cut_middle(text)
    words = _split_bytes(text)
    raw = text.encode("utf-8", "replace")
    digits = len(raw) - len(raw.translate(None, _DIGITS))
    shape = (
        math.log1p(len(words)),
        float("\n" in text),
        float("?" in text),
        float(digits > 0),
    )
    if not with_form:
        return TextFeatures(tuple(dict.fromkeys(map(_coarse.__getitem__, words))), shape)
    found = dict.fromkeys(map(_fine.__getitem__, words))
    coarse = tuple(dict.fromkeys([bucket & (BUCKETS - 1) for bucket in found]))
    form = _describe_form(text, raw, digits, found.keys(), len(words))
    return TextFeatures(coarse, shape, tuple(found), form)


def list_word_buckets(text: str) -> tuple[int, ...]:
    """Return the finer buckets of a text's words, each once: `TextFeatures.words` by itself."""
    return tuple(dict.fromkeys(map(_fine.__getitem__, _split_bytes(cut_middle(text)))))


def add_weights(weights: Sequence[float], buckets: tuple[int, ...]) -> float:
    """Return the sum of the weights of these buckets, in their order."""
    if len(buckets) > 1:
        # In half the time of a map over __getitem__.
        return float(sum(itemgetter(*buckets)(weights)))
    return weights[buckets[0]] if buckets else 0.0


def _split_bytes(text: str) -> list[bytes]:
    """Return the words of a text as `split_words` does, encoded; bytes are split much faster."""
    text = text.lower()
    if not text.isascii():
        # Beyond ASCII too what white space is str.split() knows.
        text = " ".join(text.split())
    try:
        return text.encode().translate(_BYTES_TO_SPACES).split()
    except UnicodeEncodeError:  # half a surrogate pair
        words = text.translate(_TO_SPACES).split()
        return [word.encode("utf-8", "replace") for word in words]


class _Buckets(dict[bytes, int]):
    """Buckets of words met before; any other is hashed, and kept."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def __missing__(self, word: bytes) -> int:
        if len(self) >= _MOST_CACHED:
            self.clear()
        found = self[word] = crc32(word) % self._size
        return found


_fine, _coarse = _Buckets(WORD_BUCKETS), _Buckets(BUCKETS)


def _describe_form(
    text: str, raw: bytes, digits: int, found: AbstractSet[int], words: int
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
        float(_has_any(text, _OPTIONS)),
        float(_has_any(text, _CODE)),
        float(_has_any(text, _BLANK)),
        float("$" in text),
        float(not found.isdisjoint(_REASONS)),
        float(not found.isdisjoint(_WHATS)),
        letters / max(1, words),
        0.0 if text.isascii() else 1.0 - len(raw.translate(None, _HIGH)) / size,
    )


def _has_any(text: str, marks: tuple[tuple[str, str], ...]) -> bool:
    for rare, mark in marks:  # noqa: SIM110 - a generator takes twice the time
        if rare in text and mark in text:
            return True
    return False
