"""What a backend does after a request: a list of steps.

Bytes are written, a float is a pause in seconds, and the rest are the signals below. A script that
ends without one of them leaves the connection open for more requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from tests.faults.asked import Asked


class Signal(Enum):
    """What a step can be beside bytes and a pause."""

    CLOSE = auto()
    RESET = auto()
    STALL = auto()
    """Nothing more, until the gateway leaves."""


@dataclass(frozen=True)
class Endless:
    """A piece that is written over and over, `pause` seconds apart."""

    piece: bytes
    pause: float = 0.0


Step = bytes | float | Signal | Endless
Script = list[Step]
CLOSE, RESET, STALL = Signal.CLOSE, Signal.RESET, Signal.STALL
Kind = Callable[[Asked], Script]


class FaultKinds(dict[str, Kind]):
    """Faults by name."""

    def kind(self, name: str) -> Callable[[Kind], Kind]:
        """Register a fault."""

        def register(script: Kind) -> Kind:
            self[name] = script
            return script

        return register
