"""The ids that requests go to backends by, and telling another request's answer by its id.

vLLM answers by the id that it was sent (`chatcmpl-` before it). An answer with the number of some
other request of this process is that request's: somebody between here and vLLM confuses them.
Ids that hold no such number say nothing.
"""

import secrets
from typing import Final

_MOST_DIGITS: Final = 9


class SentIds:
    """Numbers what is sent, so that vLLM meets no id twice, whatever clients send.

    Numbers begin at random, so that those of two workers do not meet at one vLLM.
    """

    __slots__ = ("_first", "_next")

    def __init__(self) -> None:
        self._first = self._next = secrets.randbits(32)

    def number(self) -> int:
        """Return the next request's number."""
        self._next += 1
        return self._next

    @staticmethod
    def name(request_id: str, number: int) -> str:
        """Return the id that a request is sent by."""
        return f"{request_id}-{number:x}"

    def is_anothers(self, answered_id: str, number: int) -> bool:
        """Tell whether an answer's id is that of another request than the one with `number`."""
        _, dash, digits = answered_id.rpartition("-")
        if not dash or not 0 < len(digits) <= _MOST_DIGITS:
            return False
        try:
            found = int(digits, 16)
        except ValueError:
            return False
        return found != number and self._first < found <= self._next
