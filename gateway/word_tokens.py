"""Tokens of words that were met before: most of a text need not be encoded to be counted.

Rules of this file:

- The count is that of encoding the whole text. cl100k's splitting rule ends a piece wherever a
  space follows something that is no white space, and no merge crosses the end of a piece: a text's
  tokens are the sum over its words, each with the space before it.
- Runs of white space are pieces of their own making: a text that has them is cut by a pattern,
  which keeps a run together; any other by its spaces alone.
- What is new is learnt a few words a text and otherwise encoded together, so that a text of nothing
  but new words costs little more than without this.
"""

import re
from collections.abc import Callable, Sequence

MOST_WORDS = 32_768
"""Words kept of each kind; beyond that all are forgotten and learnt anew."""

_LEARNT_A_TEXT = 4
_LONGEST_WORD = 24
_RUNS = ("   ", " \n", " \r", "\t", "\x0b", "\x0c")
# What Unicode calls White_Space; Python's own \s has four control characters more.
_OTHER = "\t-\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE, _WORD = f"[ {_OTHER}]", f"[^ {_OTHER}]"
_CHUNK = re.compile(
    f"{_SPACE}*{_WORD}+(?:[{_OTHER}]{_SPACE}*{_WORD}+)*(?:[{_OTHER}]{_SPACE}*\\Z)?|{_SPACE}+"
)


class WordTokens:
    """Counts tokens of a text; `encode` gives those of any text."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode
        self._words: dict[str, int] = {}
        self._chunks: dict[str, int] = {}

    def count_tokens(self, text: str) -> int:
        """Return as many as `encode` would give."""
        plain = text.isascii() and not text.endswith("  ")
        if not plain or any(run in text for run in _RUNS):
            return self._count_known(_CHUNK.findall(text), self._chunks, "")
        first, *words = text.split(" ")
        tokens = len(self._encode(first)) if first else 0
        return tokens + self._count_known(words, self._words, " ") if words else tokens

    def _count_known(self, words: list[str], known: dict[str, int], before: str) -> int:
        """Sum over words that each have `before` in front of them."""
        # Two spaces in a row: a piece by itself here, part of a longer one elsewhere.
        known[""] = 1
        counts = list(map(known.get, words))
        new = [word for word, count in zip(words, counts, strict=True) if count is None]
        if not new:
            return sum(counts)  # type: ignore[arg-type] # none is None
        tokens = sum(filter(None, counts))
        if len(known) >= MOST_WORDS:
            known.clear()
        for word in new[-_LEARNT_A_TEXT:]:
            found = len(self._encode(before + word))
            tokens += found
            if len(word) <= _LONGEST_WORD:
                known[word] = found
        rest = new[:-_LEARNT_A_TEXT]
        return tokens + len(self._encode(before + before.join(rest))) if rest else tokens
