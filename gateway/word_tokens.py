"""Tokens of words that were met before: most of a text need not be encoded to be counted.

Rules of this file:

- The count is that of encoding the whole text. cl100k's splitting rule ends a piece wherever a
  space follows something that is no white space, and no merge crosses the end of a piece: a text's
  tokens are the sum over its words, each with the space before it.
- A run of spaces is one piece and one token, but for its last space, which is the next word's. Any
  other white space beside a space makes pieces of its own: a text that has it is cut by a pattern,
  which keeps such runs together; any other by its spaces alone.
- What is new is learnt a few words a text and otherwise encoded together, so that a text of nothing
  but new words costs little more than without this.
"""

import re
from collections.abc import Callable, Sequence

MOST_WORDS = 32_768
"""Words kept of each kind; beyond that all are forgotten and learnt anew."""

_LEARNT_A_TEXT = 8
_LONGEST_WORD = 24
_LONGEST_RUN = 64  # surely one token, and more than any text is indented by
_RUN = " " * _LONGEST_RUN
_OTHER_RUNS = (" \n", " \r", "\t", "\x0b", "\x0c")
_SPACES = re.compile("  +")
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
        has_runs = "  " in text
        plain = text.isascii() and not (has_runs and (text.endswith("  ") or _RUN in text))
        if not plain or any(run in text for run in _OTHER_RUNS):
            return self._count_known(_CHUNK.findall(text), self._chunks, "")
        first, *words = text.split(" ")
        tokens = len(self._encode(first)) if first else 0
        if words and not words[-1]:
            tokens += 1  # a space at the end
            words.pop()
        if has_runs:
            tokens += len(_SPACES.findall(text))
            words = list(filter(None, words))
        return tokens + self._count_known(words, self._words, " ") if words else tokens

    def _count_known(self, words: list[str], known: dict[str, int], before: str) -> int:
        """Sum over words that each have `before` in front of them."""
        counts = list(map(known.get, words))
        if None not in counts:
            return sum(counts)  # type: ignore[arg-type] # none is None
        new = [word for word, count in zip(words, counts, strict=True) if count is None]
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
