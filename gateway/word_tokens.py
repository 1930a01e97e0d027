"""Tokens of words that were met before: most of a text need not be encoded to be counted.

Rules of this file:

- The count is that of encoding the whole text. cl100k's splitting rule ends a piece wherever a
  space follows something that is no white space, and after a line break that no white space
  follows; no merge crosses the end of a piece. So a text's tokens are the sum over its words, each
  with the space before it, the first of a line without one, the last of a line with its breaks.
- A run of spaces is one piece and one token, but for its last space, which is the next word's. Any
  other white space beside a space, or before a break, makes pieces of its own: a text that has it
  is cut by a pattern, which keeps such runs together; any other by its spaces and breaks alone.
- What is new is learnt a few words a text and otherwise encoded together, so that a text of nothing
  but new words costs little more than without this. What was not met for long is forgotten.
"""

import re
from collections.abc import Callable, Sequence

MOST_WORDS = 32_768
"""Words kept of each kind."""

_LEARNT_A_TEXT = 8
_LEARNT_SHARE = 8  # and one in so many of what is new
_LONGEST_WORD = 40
_DEARER = 3
"""How many times as long a word takes by itself as in a text."""
_LONGEST_RUN = 64  # surely one token, and more than any text is indented by
_RUN = " " * _LONGEST_RUN
# What Unicode calls White_Space; Python's own \s has four control characters more.
_OTHER = "\t-\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE, _WORD = f"[ {_OTHER}]", f"[^ {_OTHER}]"
_CHUNK = re.compile(
    f"{_SPACE}*{_WORD}+(?:[{_OTHER}]{_SPACE}*{_WORD}+)*(?:[{_OTHER}]{_SPACE}*\\Z)?|{_SPACE}+"
)
_LINE = "\0"
"""Stands before the first word of a line, which has no space before it."""
_PATTERNED_ASCII = ("\t", "\r", "\x0b", "\x0c", _LINE, _RUN)
_PATTERNED = (
    *_PATTERNED_ASCII,
    *"\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029",
    *"\u202f\u205f\u3000",
)
"""What a text must not have in it to be cut by its spaces and breaks alone; nor a break after a
space, which is seen once it was cut."""


class WordTokens:
    """Counts tokens of a text; `encode` gives those of any text."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode
        self._words = _KnownTokens({"": 0, _LINE: 0})
        self._chunks = _KnownTokens({})

    def count_tokens(self, text: str) -> int:
        """Return as many as `encode` would give."""
        patterned = _PATTERNED_ASCII if text.isascii() else _PATTERNED
        blank_end = text.endswith(("  ", "\n "))
        if any(map(text.__contains__, patterned)) or (blank_end and not text.strip(" \n")):
            return self._count_chunks(text)
        if blank_end:
            return self._count_blank_end(text)
        marked = _LINE + text
        if "\n" in text:
            marked = marked.replace("\n", f"\n {_LINE}").replace(f" {_LINE}\n", "\n")
        words = marked.split(" ")
        tokens, new = self._words.add_up(words)
        if new and any(word[0] == "\n" for word in new):
            # A break after a space; looking for it before takes longer than all other looks.
            return self._count_chunks(text)
        if "  " in text:
            # A run is as many parts as it has pairs, all of them empty but the one that it ends at.
            _, *parts = text.split("  ")
            tokens += len(parts) - parts.count("")
        if text.endswith(" "):
            tokens += 1
        if new:
            lines = [word for word in new if word[0] == _LINE]
            few = _LEARNT_A_TEXT + len(lines) // _LEARNT_SHARE
            if _DEARER * len(lines) > len(words) and len(lines) > few:
                self._learn_lines(lines[-few:])
                return len(self._encode(text))
            if lines:
                tokens += self._learn_lines(lines)
                new = [word for word in new if word[0] != _LINE]
            tokens += self._learn(self._words, new, " ")
        return tokens

    def _count_chunks(self, text: str) -> int:
        """Return the tokens of a text that is cut by the pattern."""
        tokens, new = self._chunks.add_up(_CHUNK.findall(text))
        return tokens + self._learn(self._chunks, new, "") if new else tokens

    def _count_blank_end(self, text: str) -> int:
        """Return the tokens of a text whose last word has blanks behind it."""
        body = text.rstrip(" \n")
        begin = max(body.rfind(" "), body.rfind("\n"), 0)
        last = body[begin:].removeprefix("\n")
        more = len(self._encode(last + text[len(body) :])) - len(self._encode(last))
        return self.count_tokens(body) + more

    def _learn_lines(self, lines: list[str]) -> int:
        """Return the tokens of words that each begin a line; keep them."""
        note, encode = self._words.note, self._encode
        return sum(note(word, len(encode(word[1:]))) for word in lines)

    def _learn(self, known: "_KnownTokens", new: list[str], before: str) -> int:
        """Return the tokens of words that each have `before` in front of them; keep some."""
        tokens = 0
        few = _LEARNT_A_TEXT + len(new) // _LEARNT_SHARE
        for word in new[-few:]:
            tokens += known.note(word, len(self._encode(before + word)))
        rest = new[:-few]
        return tokens + len(self._encode(before + before.join(rest))) if rest else tokens


class _KnownTokens(dict[str, int]):
    """Tokens by word; `always` are never forgotten.

    One that is not found is looked for among the older half, and kept for longer if it is there.
    """

    def __init__(self, always: dict[str, int]) -> None:
        super().__init__(always)
        self._always = always
        self._older: dict[str, int] = {}
        self._new: list[str] = []

    def __missing__(self, word: str) -> int:
        found = self._older.get(word)
        if found is None:
            self._new.append(word)
            return 0
        self[word] = found
        return found

    def add_up(self, words: list[str]) -> tuple[int, list[str]]:
        """Return the tokens of the known ones, and the others."""
        if len(self) >= MOST_WORDS // 2:
            self._older = dict(self)
            self.clear()
            self.update(self._always)
        tokens = sum(map(self.__getitem__, words))
        new = self._new
        if new:
            self._new = []
        return tokens, new

    def note(self, word: str, tokens: int) -> int:
        """Keep and return a word's tokens; a long one comes too seldom to be kept."""
        if len(word) <= _LONGEST_WORD:
            self[word] = tokens
        return tokens
