"""GPUs whose counters move as NVML's do, and what a gateway and a meter tell the real ledger."""

from dataclasses import dataclass, field
from random import Random

from backends.meter.ledger.decode_weights import DecodeCost
from backends.meter.ledger.ledger import EnergyLedger
from backends.simulator.engine import BatchingEngine, EngineStep
from tests.lab.costs import ProfiledCost
from tests.lab.results import Counters, LabRequest
from tests.lab.schedule import Arrival

MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Meter:
    """How energy is metered."""

    period_seconds: float = 0.1
    """A counter is updated that often."""
    jitter_seconds: float = 0.002
    """An update is noticed that much later at most."""
    noise: float = 0.0
    """Relative sd of each advance of a counter."""
    devices: int = 1
    """Counters of one GPU set, each with a part of its energy and a phase of its own."""
    batch_seconds: float = 0.25
    """A gateway tells what is new that often."""
    poll_seconds: float = 1.0
    """vLLM's own token counters are read that often; 0: never."""
    timings: bool = True
    """vLLM's --enable-per-request-metrics."""
    cached_told: bool = True
    """vLLM's --enable-prompt-tokens-details."""
    off: bool = False
    """Keep the truth only."""


@dataclass(slots=True)
class Gpu:
    """A set of devices: engines that spend, idle power, counters, a ledger."""

    name: str
    idle_watts: float
    meter: Meter
    ledger: EnergyLedger
    rng: Random
    engines: list[BatchingEngine] = field(default_factory=list)
    steps: dict[int, tuple[float, float, EngineStep]] = field(default_factory=dict)
    """Those under way: (began, ends, step) by engine's place."""
    idle_joules: float = 0.0
    idle_since: float = 0.0
    shown: list[tuple[float, int]] = field(default_factory=list)
    _updated: list[int] = field(default_factory=list)
    _moved: list[bool] = field(default_factory=list)
    _closed: int = 0
    _noise: float = 0.0
    _told: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._updated = [0] * self.meter.devices
        self._moved = [False] * self.meter.devices

    def begin_step(self, place: int, began: float, ends: float, step: EngineStep) -> None:
        """An engine computes until `ends`."""
        if not self.steps:
            self.idle_joules += self.idle_watts * (began - self.idle_since)
        self.steps[place] = (began, ends, step)

    def end_step(self, place: int, now: float) -> EngineStep:
        """It is done."""
        step = self.steps.pop(place)[2]
        if not self.steps:
            self.idle_since = now
        return step

    def microjoules(self, now: float) -> int:
        """All that was spent by now; a step is spent evenly over its time."""
        spent = sum(engine.microjoules for engine in self.engines)
        for began, ends, step in self.steps.values():
            spent -= round(step.microjoules * min(max((ends - now) / (ends - began), 0.0), 1.0))
        idle = self.idle_joules
        if not self.steps:
            idle += self.idle_watts * (now - self.idle_since)
        return spent + round(idle * MICRO)

    def update(self, device: int, now: float) -> None:
        """A device's counter moves; once all have, an interval of the ledger closes."""
        before = self._updated[device]
        self._updated[device] = self.microjoules(now)
        moved = self._updated[device] - before
        if self.meter.noise:
            self._noise += moved * self.rng.gauss(0.0, self.meter.noise)
        self._moved[device] = True
        if not all(self._moved):
            return
        self._moved = [False] * self.meter.devices
        # Each device has its part of the energy; what it shows is as old as its last update.
        shown = round(sum(self._updated) / self.meter.devices + self._noise / self.meter.devices)
        shown = max(shown, self._closed)
        noticed = now + self.rng.uniform(0.0, self.meter.jitter_seconds)
        self.ledger.advance_counter(round(noticed * MICRO), shown - self._closed)
        self._closed = shown
        self.shown.append((noticed, shown))

    def take_unattributed(self) -> list[tuple[str, int]]:
        """Idle and other microjoules since it was last asked."""
        found = {"idle": self.ledger.idle_microjoules, "other": self.ledger.other_microjoules}
        fresh = [(kind, total - self._told.get(kind, 0)) for kind, total in found.items()]
        self._told = found
        return [(kind, amount) for kind, amount in fresh if amount]

    def books(self, true_busy_microjoules: int) -> Counters:
        """Where the ledger put what its counters advanced by."""
        ledger = self.ledger
        return Counters(
            advanced_microjoules=ledger.advanced_microjoules,
            request_microjoules=ledger.attributed_microjoules,
            other_microjoules=ledger.other_microjoules,
            idle_microjoules=ledger.idle_microjoules,
            unsettled_microjoules=ledger.unsettled_microjoules,
            true_busy_microjoules=true_busy_microjoules,
            shown=self.shown,
        )


class Teller:
    """What one gateway tells of its requests to one backend."""

    def __init__(self, gpu: Gpu, backend: str, cost: ProfiledCost, first_share, guess) -> None:
        self.gpu = gpu
        self.backend = backend
        self.cost = cost
        self._first_share = first_share
        self._guess_tokens = guess
        self._caches = False
        self._live: dict[int, list] = {}  # number -> [request, tokens told, when]

    def begin(self, request: LabRequest) -> None:
        """It is sent."""
        arrival = request.arrival
        counted = arrival.counted_tokens_in or arrival.tokens_in
        prefill = round(self.cost.prompt_joules * counted * MICRO)
        self._live[request.number] = [request, 0, 0.0]
        self.gpu.ledger.begin_request(
            ("gateway", request.number),
            round(arrival.at_seconds * MICRO),
            self.backend,
            counted,
            prefill,
            self._caches,
            told_cost(self.cost),
        )

    def first(self, number: int, now: float) -> None:
        """Its first token has come."""
        seen = self._live.get(number)
        if seen is not None and seen[0].arrival.stream:
            seen[1], seen[2] = 1, now
            self._progress(number, now, 1)

    def batch(self, engine: BatchingEngine, now: float) -> None:
        """Tell how far streams have come by the end of a step."""
        for number, seen in self._live.items():
            request, told, _ = seen
            if not told or request.arrival.reads_after_seconds:
                continue  # what its client does not take has not passed the gateway
            tokens = engine.tokens_of(str(number))
            if tokens > told:
                self._progress(number, now, tokens)
                seen[1], seen[2] = tokens, now

    def end(self, request: LabRequest, now: float, *, whole: bool) -> None:
        """It is over: whole, or its client has left."""
        seen = self._live.pop(request.number, None)
        if seen is None:
            return
        arrival, truth, meter = request.arrival, request.truth, self.gpu.meter
        key, at_us = ("gateway", request.number), round(now * MICRO)
        if not whole:
            tokens = truth.tokens_out if arrival.stream else self._guess(arrival, now)
            self.gpu.ledger.end_request(key, at_us, tokens, unseen=not arrival.stream)
            return
        if truth.cached_tokens and meter.cached_told:
            self._caches = True
        if not arrival.stream:
            lasted = now - arrival.at_seconds
            share = (
                truth.first_token_seconds / truth.seconds
                if meter.timings
                else self._first_share(arrival.tokens_in, truth.tokens_out)
            )
            self._progress(request.number, arrival.at_seconds + lasted * share, 1)
        self.gpu.ledger.end_request(
            key,
            at_us,
            truth.tokens_out,
            prompt_tokens=truth.tokens_in,
            cached_tokens=truth.cached_tokens if meter.cached_told else None,
            queue_us=round(truth.queue_seconds * MICRO) if meter.timings else None,
        )

    def _guess(self, arrival: Arrival, now: float) -> int:
        """What a gateway guesses that an unseen answer had, by its profile's seconds."""
        return self._guess_tokens(arrival.tokens_in, now - arrival.at_seconds)

    def _progress(self, number: int, at_seconds: float, tokens: int) -> None:
        self.gpu.ledger.record_progress(("gateway", number), round(at_seconds * MICRO), tokens)


def told_cost(cost: ProfiledCost) -> DecodeCost | None:
    """What a gateway tells of generated tokens, where the profile has it."""
    if not (cost.own_joules or cost.shared_joules):
        return None
    parts = (cost.own_joules, cost.context_joules, cost.shared_joules)
    return DecodeCost(*(round(1e9 * part) for part in parts))
