"""All the faults, in the order in which they are tried."""

from tests.faults import answer_kinds, framing_kinds, stream_kinds
from tests.faults.script import FaultKinds

KINDS = FaultKinds(answer_kinds.KINDS | stream_kinds.KINDS | framing_kinds.KINDS)
