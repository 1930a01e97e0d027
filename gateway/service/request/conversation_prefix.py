"""The beginnings of a conversation as marks: keyed hashes, by which prefix caches are looked for.

Rules: made only where a backend reports what its cache held. Of a long message its length and both
ends stand for it: a mistaken guess costs a prompt's prefill, not an answer. The key is this
installation's, and no mark is logged or exported.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.cut_text import measure_size
from gateway.scheduling.prefix_holders import PrefixMarks

_SIZE: Final = 16
_END_CHARS: Final = 1024
_MOST_TURNS: Final = 16
"""Of the latest messages; what an answer left behind stands two before a conversation's end."""


class ConversationTexts(NamedTuple):
    """A conversation's texts; message k ends before `texts[ends[k]]`.

    The first `leading` texts are what the application always sends.
    """

    texts: Sequence[str]
    ends: Sequence[int]
    leading: int = 0


NO_TEXTS: Final = ConversationTexts((), ())


def mark_prefixes(found: ConversationTexts, application: str, key: bytes) -> PrefixMarks:
    """Return the marks of a conversation; `application` is the hash of what it always sends."""
    texts, ends, leading = found
    chain = hashlib.blake2b(application.encode(), digest_size=_SIZE, key=key)
    turns: list[bytes] = []
    first, unmarked = 0, len(ends) - _MOST_TURNS
    for number, end in enumerate(ends):
        for text in texts[first:end]:
            chain.update(_shorten(text))
        chain.update(b"\0")
        first = end
        if number >= unmarked:
            turns.append(chain.digest())
    chars = sum(map(measure_size, texts[:leading]))
    if not chars:
        return PrefixMarks(tuple(turns))
    return PrefixMarks(tuple(turns), application.encode(), chars / sum(map(measure_size, texts)))


def _shorten(text: str) -> bytes:
    size = measure_size(text)
    if size > 2 * _END_CHARS:
        text = f"{size}\n{text[:_END_CHARS]}{text[-_END_CHARS:]}"
    return text.encode("utf-8", "replace")
