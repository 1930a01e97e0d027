"""Conversations on engines with a prefix cache: what going back to its holder saves.

The cache's truth is the engine's own: whole blocks of what was computed there, the oldest
conversation out first where it is full. The gateways know only what answers report of it.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from random import Random

from gateway.scheduling.answer_length import AnswerLength
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures
from gateway.scheduling.prefix_holders import NOTHING_HELD, PrefixMarks
from gateway.service.request.learnt import Learnt
from gateway.service.request.lessons import make_lesson
from tests.lab.gateways import SIGMA, FleetSpec, LabGateways
from tests.lab.lab import Lab, Load, Placed
from tests.lab.metering import Meter
from tests.lab.results import LabRequest
from tests.lab.schedule import Arrival

BLOCK_TOKENS = 16
CACHE_TOKENS = 300_000
TURNS = 10


def talks(
    *, count: int, seed: int, spread_seconds: float = 60.0, turns: int = TURNS
) -> list[Arrival]:
    """So many conversations; each turn sends all that was said before it. `tag` is its number."""
    rng = Random(seed)
    found = []
    for number in range(count):
        at_seconds, said = rng.uniform(0.0, spread_seconds), rng.randint(200, 800)
        for _ in range(turns):
            said += rng.randint(30, 400)
            answer = min(1024, max(1, round(rng.lognormvariate(log(250.0) - SIGMA**2 / 2, SIGMA))))
            found.append(Arrival(at_seconds, said, answer, tag=str(number)))
            said += answer
            at_seconds += rng.uniform(25.0, 60.0)
    return sorted(found, key=lambda one: one.at_seconds)


@dataclass
class _PrefixCache:
    """One engine's: the tokens of each conversation that were computed there."""

    held: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def find_tokens(self, arrival: Arrival) -> int:
        held = min(self.held.get(arrival.tag, 0), arrival.tokens_in - 1)
        return held - held % BLOCK_TOKENS

    def fill(self, conversation: str, tokens: int) -> None:
        self.held.pop(conversation, None)
        self.held[conversation] = tokens
        while sum(self.held.values()) > CACHE_TOKENS:
            self.held.popitem(last=False)


class ConversationGateways(LabGateways):
    """A gateway that may know who holds a conversation's beginning."""

    def __init__(self, fleet: FleetSpec, *, affinity: bool, weights: MetricWeights) -> None:
        super().__init__(fleet, weights=weights)
        self._affinity = affinity
        self._caches = {one.name: _PrefixCache() for one in fleet.backends}
        self._learnt = Learnt()
        self._turns: dict[str, int] = {}
        self._lessons = {}
        for gateway in self._gateways:
            gateway.deciding.learnt = self._learnt

    def __call__(self, arrival: Arrival, loads: Mapping[str, Load]) -> Placed:
        """Decide with what is known of its earlier turns; the engine finds what it truly holds."""
        turn = self._turns[arrival.tag] = self._turns.get(arrival.tag, -1) + 1
        marks = PrefixMarks(tuple(f"{arrival.tag}/{n}".encode() for n in range(turn + 1)))
        held = NOTHING_HELD
        if self._affinity and self._learnt.prefixes.is_active:
            held = self._learnt.prefixes.find_held_tokens(marks, arrival.at_seconds)
        number = len(self._sent)
        placed = self.decide(arrival, loads, held)
        found = self._caches[placed.backend].find_tokens(arrival)
        features = RequestFeatures(arrival.tokens_in, arrival.limit)
        lesson = make_lesson(features, "", _NO_BASES, has_media=True, prefix=marks, held=held)
        self._lessons[number] = (lesson, found)
        return placed._replace(cached_tokens=found)

    def ended(self, now: float, request: LabRequest) -> None:
        """The engine keeps what it computed, and the gateway is told what was cached."""
        super().ended(now, request)
        arrival, (lesson, found) = request.arrival, self._lessons.pop(request.number)
        self._caches[request.backend].fill(arrival.tag, arrival.tokens_in + request.tokens_out)
        if self._affinity:
            (name,) = (n for n, group in self._fleet.replicas.items() if request.backend in group)
            self._learnt.observe_prefix(
                ((name, name), request.backend),
                lesson,
                prompt_tokens=arrival.tokens_in,
                completion_tokens=request.tokens_out,
                cached_tokens=found,
                at_seconds=now,
            )


_NO_BASES: Mapping[tuple[str, str], AnswerLength] = {}


@dataclass(frozen=True, slots=True)
class ConversationCosts:
    """What conversations took: their own joules and seconds, and all that the counters showed."""

    joules: float
    seconds: float
    counter_joules: float
    cached_tokens: int


def hold_conversations(
    fleet: FleetSpec, arrivals: Sequence[Arrival], *, affinity: bool, weights: MetricWeights
) -> ConversationCosts:
    """Hold them all, and count."""
    gateways = ConversationGateways(fleet, affinity=affinity, weights=weights)
    meter = Meter(period_seconds=1.0, batch_seconds=60.0, poll_seconds=0.0)
    run = Lab(fleet.backends, place=gateways, onlooker=gateways, meter=meter).run(arrivals)
    truths = [request.truth for request in run.requests if request.truth is not None]
    assert len(truths) == len(arrivals)
    return ConversationCosts(
        sum(truth.total_joules for truth in truths),
        sum(truth.seconds for truth in truths),
        sum(books.advanced_microjoules for books in run.counters.values()) / 1e6,
        sum(truth.cached_tokens for truth in truths),
    )
