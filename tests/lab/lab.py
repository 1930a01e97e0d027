"""Engines, a placement and meters on one virtual clock. Times are seconds of the run."""

from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple

from backends.meter.ledger.ledger import EnergyLedger
from tests.lab.metering import MICRO, Gpu, Meter
from tests.lab.results import LabRequest, LabRun
from tests.lab.schedule import Arrival
from tests.lab.server import LabBackend, LabServer

_TAIL_SECONDS = 3.0
_FAR_US = 10_000 * MICRO


class Load(NamedTuple):
    """How busy a backend is when a request is placed."""

    running: int
    waiting: int


class Placed(NamedTuple):
    """Where a request goes; a choice of model may bring its own answer length."""

    backend: str
    tokens_out: int | None = None
    cached_tokens: int | None = None
    """What is found in its prefix cache; None: what the arrival says."""


Placement = Callable[[Arrival, Mapping[str, Load]], Placed]


class Onlooker:
    """What else a placement is told: looks at the fleet, first tokens, ends."""

    look_seconds = 0.0
    """How often it looks at the fleet; 0: never."""

    def look(self, now: float, loads: Mapping[str, Load]) -> None:
        """See how busy all are."""

    def first(self, now: float, request: LabRequest) -> None:
        """Hear of a request's first token."""

    def ended(self, now: float, request: LabRequest) -> None:
        """Hear that a request is over."""

    def settled(self, now: float, request: LabRequest) -> None:
        """Hear what a request was charged."""

    def spent(self, now: float, gpu: str, kind: str, microjoules: int) -> None:
        """Hear of idle and other joules."""


def least_busy(_: Arrival, loads: Mapping[str, Load]) -> Placed:
    """Spread."""
    return Placed(min(loads, key=lambda name: sum(loads[name])))


class Lab:
    """A fleet; each `run` begins anew from the seed."""

    def __init__(
        self,
        backends: Sequence[LabBackend],
        *,
        seed: int = 1,
        meter: Meter = Meter(),  # noqa: B008 - frozen
        place: Placement = least_busy,
        onlooker: Onlooker | None = None,
    ) -> None:
        """`place` chooses for each arrival that names no backend; `onlooker` is told the rest."""
        self._backends = backends
        self._seed = seed
        self._meter = meter
        self._place = place
        self._onlooker = onlooker or Onlooker()

    def run(self, arrivals: Sequence[Arrival], seconds: float = 0.0) -> LabRun:
        """Serve a schedule to its end, and for `seconds` at least."""
        parts = (self._backends, self._seed, self._meter, self._place, self._onlooker)
        return _Run(*parts).serve(arrivals, seconds)


class _Run:
    def __init__(
        self,
        backends: Sequence[LabBackend],
        seed: int,
        meter: Meter,
        place: Placement,
        onlooker: Onlooker,
    ) -> None:
        self._onlooker = onlooker
        self._meter = meter
        self._placement = place
        self._gpus: dict[str, Gpu] = {}
        self._servers: dict[str, LabServer] = {}
        for index, spec in enumerate(backends):
            gpu = self._gpus.get(spec.gpu)
            if gpu is None:
                rng = Random(f"{seed}-{spec.gpu}")
                gpu = Gpu(spec.gpu, spec.truth.idle_watts, meter, EnergyLedger(spec.gpu), rng)
                self._gpus[spec.gpu] = gpu
            server = LabServer(spec, len(gpu.engines), gpu, seed * 1000 + index)
            gpu.engines.append(server.engine)
            self._servers[spec.name] = server
        self._requests: dict[int, LabRequest] = {}
        self._started: dict[int, tuple[float, float]] = {}
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()
        self._open = 0
        self._until = 0.0
        self._busy_until = 0.0

    def serve(self, arrivals: Sequence[Arrival], seconds: float) -> LabRun:
        self._until = seconds
        self._open = len(arrivals)
        for number, arrival in enumerate(arrivals):
            self._at(arrival.at_seconds, self._arrive, number, arrival)
        if not self._meter.off:
            self._start_meters()
        if self._onlooker.look_seconds:
            self._at(0.0, self._look)
        now = 0.0
        while self._events:
            now, _, action, arguments = heappop(self._events)
            action(now, *arguments)
        if not self._meter.off:
            for gpu in self._gpus.values():
                self._settle(gpu, round(now * MICRO) + _FAR_US)
        return LabRun(
            [self._requests[number] for number in sorted(self._requests)],
            {gpu.name: gpu.books(self._true(gpu)) for gpu in self._gpus.values()},
            max(self._busy_until + _TAIL_SECONDS, self._until),
        )

    def _at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        heappush(self._events, (when, next(self._order), action, arguments))

    def _again(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        """Repeat while there is anything to see."""
        if self._open or when <= max(self._busy_until + _TAIL_SECONDS, self._until) + 1e-9:
            self._at(when, action, *arguments)

    def _start_meters(self) -> None:
        meter = self._meter
        for gpu in self._gpus.values():
            gpu.ledger.start_counter(0)
            for device in range(meter.devices):
                phase = meter.period_seconds * (1 + device / meter.devices)
                self._at(phase, self._update, gpu, device)
            self._at(meter.batch_seconds, self._batch, gpu)
        if meter.poll_seconds:
            for server in self._servers.values():
                server.gpu.ledger.enable_token_polling(server.name)
                self._at(0.0, self._poll, server)

    def _loads(self) -> dict[str, Load]:
        return {
            name: Load(server.engine.running_requests, server.engine.waiting_requests)
            for name, server in self._servers.items()
        }

    def _look(self, now: float) -> None:
        self._onlooker.look(now, self._loads())
        if self._open:
            self._at(now + self._onlooker.look_seconds, self._look)

    def _arrive(self, now: float, number: int, arrival: Arrival) -> None:
        loads = self._loads()
        if arrival.backend is None:
            placed = self._placement(arrival, loads)
        else:
            placed = Placed(arrival.backend)
        server = self._servers[placed.backend]
        tokens_out = placed.tokens_out or arrival.tokens_out
        cached = placed.cached_tokens
        if cached is None:
            cached = arrival.cached_tokens
        request = LabRequest(number, arrival, placed.backend, tokens_out, cached)
        self._requests[number] = request
        server.change(now, 1)
        self._started[number] = (server.load_seconds, server.share_seconds)
        server.requests[str(number)] = request
        server.engine.submit_request(str(number), arrival.tokens_in, tokens_out, cached, now)
        if arrival.reported and not self._meter.off:
            server.teller.begin(request)
        if arrival.leaves_after_seconds is not None:
            self._at(now + arrival.leaves_after_seconds, self._leave, server, request)
        self._step(now, server)

    def _step(self, now: float, server: LabServer) -> None:
        engine = server.engine
        if server.stepping:
            return
        engine.advance_idle(max(0.0, now - engine.seconds))
        step = engine.run_step()
        if step is not None:
            server.stepping = True
            server.gpu.begin_step(server.place, now, engine.seconds, step)
            self._at(engine.seconds, self._stepped, server)

    def _stepped(self, now: float, server: LabServer) -> None:
        server.stepping = False
        step = server.gpu.end_step(server.place, now)
        plain = not server.engine.truth.draft_tokens
        server.generated_tokens += len(step.tokens) if plain else sum(n for _, n in step.tokens)
        for name in step.started:
            request = server.requests.get(name)
            if request is not None:
                server.teller.first(request.number, now)
                self._onlooker.first(now, request)
                server.prompt_tokens += request.arrival.tokens_in - request.cached_tokens
        if server.report_due:
            server.report_due = False
            server.teller.batch(server.engine, now)
        for truth in step.finished:
            request = server.requests.pop(truth.request_id, None)
            # One that has left during this very step was ended then.
            if request is not None:
                self._end(now, server, request, truth, whole=True)
        self._busy_until = max(self._busy_until, now)
        self._step(now, server)

    def _leave(self, now: float, server: LabServer, request: LabRequest) -> None:
        if server.requests.pop(str(request.number), None) is None:
            return
        truth = server.engine.abort_request(str(request.number))
        if truth is None:  # it had its last token in the step that is under way
            ended = next(
                s
                for _, _, s in server.gpu.steps.values()
                if any(t.request_id == str(request.number) for t in s.finished)
            )
            truth = next(t for t in ended.finished if t.request_id == str(request.number))
        self._end(now, server, request, truth, whole=False)

    def _end(self, now, server, request, truth, *, whole) -> None:
        request.truth = truth
        request.ended_seconds = now
        server.change(now, -1)
        lasted = now - request.arrival.at_seconds
        present, shared = self._started.pop(request.number)
        if lasted > 0.0:
            request.others = max(0.0, (server.load_seconds - present) / lasted - 1.0)
            request.harmonic_others = max(0.0, lasted / (server.share_seconds - shared) - 1.0)
        self._onlooker.ended(now, request)
        delay = request.arrival.reads_after_seconds
        self._at(now + delay, self._tell_end, server, request, whole)

    def _tell_end(self, now: float, server: LabServer, request: LabRequest, whole: bool) -> None:
        self._open -= 1
        if request.arrival.reported and not self._meter.off:
            server.teller.end(request, now, whole=whole)

    def _update(self, now: float, gpu: Gpu, device: int) -> None:
        gpu.update(device, now)
        self._again(now + self._meter.period_seconds, self._update, gpu, device)

    def _batch(self, now: float, gpu: Gpu) -> None:
        for server in self._servers.values():
            if server.gpu is gpu:
                server.report_due = server.stepping
        self._settle(gpu, round(now * MICRO))
        self._again(now + self._meter.batch_seconds, self._batch, gpu)

    def _settle(self, gpu: Gpu, now_us: int) -> None:
        now = now_us / MICRO
        for one in gpu.ledger.settle_requests(now_us):
            request = self._requests[one.key[1]]
            request.charged_microjoules, request.method = one.microjoules, one.method
            self._onlooker.settled(now, request)
        for kind, microjoules in gpu.take_unattributed():
            self._onlooker.spent(now, gpu.name, kind, microjoules)

    def _poll(self, now: float, server: LabServer) -> None:
        server.gpu.ledger.record_token_counts(
            server.name,
            round(now * MICRO),
            server.prompt_tokens,
            server.generated_tokens,
            server.engine.preemptions,
        )
        self._again(now + self._meter.poll_seconds, self._poll, server)

    def _true(self, gpu: Gpu) -> int:
        return sum(
            one.truth.microjoules
            for one in self._requests.values()
            if one.truth is not None and self._servers[one.backend].gpu is gpu
        )
