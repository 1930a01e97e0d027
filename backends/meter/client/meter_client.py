"""The gateway's side of a meter: what was sent to a backend, told in batches off the hot path.

A request costs it one object. Four times a second the objects are read, what is new about them is
posted, and what the meter has settled comes back with the answer. Nothing is queued: each batch is
made from the objects anew, so a batch that is lost costs nothing. A meter that does not answer is
asked again each second; meanwhile whatever has ended is given up as `estimated`. What it may have
heard begin is kept until it has heard the end too: it would wait for it with everything else.
"""

import asyncio
import copy
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from backends.client import Client
from backends.errors import BackendError
from backends.http.url import TlsFiles, parse_request_url
from backends.meter.client.request_handle import FORSAKEN, OVER, BackendMeter, Metered
from backends.meter.protocol import (
    PATH,
    Answer,
    Batch,
    Event,
    Observation,
    Place,
    Spending,
)

_log = logging.getLogger("joulegate.meter")

_PERIOD_SECONDS = 0.25
_HEARTBEAT_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0
_FAILURES = 2
"""After so many in a row, over more than as many timeouts, nothing is waited for."""
_PATIENCE_SECONDS = 130.0
"""How long an end may go unanswered: what the meter waits at most, and some more."""
_MOST_EVENTS = 8_000
_MOST_WAITING = 50_000
_MOST_ANSWER_BYTES = 2 << 20
_LIMIT = 1 << 53
_OK = 200

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Answer)


class MeterLink:
    """The connection to one meter; `settled` and `spendings` are for the owner to drain."""

    def __init__(
        self,
        root: str,
        client: Client,
        *,
        secret: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.label = urlsplit(root).netloc
        self.up = False
        self.dropped = 0
        """Requests that the meter should have measured and did not."""
        self.period_seconds: float | None = None
        self.settled: list[Metered] = []
        self.spendings: list[Spending] = []
        self._url = parse_request_url(root + PATH, tls)
        self._headers = {"Content-Type": "application/json"}
        if secret:
            self._headers["Authorization"] = f"Bearer {secret}"
        self._client = client
        self._name = secrets.token_hex(8)
        self._serial = itertools.count(1)
        self._places: list[BackendMeter] = []
        self._live: dict[int, Metered] = {}
        self._ended: dict[int, Metered] = {}
        self._waiting: dict[int, Metered] = {}
        self._owed: dict[int, Metered] = {}
        """Given up here, open at the meter."""
        self._meter = ""
        self._received = 0
        self._answered_at = time.monotonic()
        self._failures = 0
        self._away = False
        self._complained = ""

    def place(self, label: str, ledger: str) -> BackendMeter:
        """Add a backend; `ledger` "" leaves it to the meter where it belongs."""
        place = BackendMeter(self, len(self._places), label, ledger)
        self._places.append(place)
        return place

    def begin(self, place: BackendMeter, prompt_tokens: int, prefill_microjoules: int) -> Metered:
        """Note a request; see BackendMeter."""
        metered = Metered(next(self._serial), place, prompt_tokens, prefill_microjoules)
        self._live[metered.id] = metered
        return metered

    def over(self, metered: Metered) -> None:
        """Note that a request has ended, or give it up at once where nobody measures."""
        if self._live.pop(metered.id, None) is None:
            return
        if self._away or not metered.place.known or metered.told == FORSAKEN:
            self._give_up(metered)
            return
        self._ended[metered.id] = metered
        if len(self._ended) + len(self._waiting) > _MOST_WAITING:
            oldest = self._waiting or self._ended
            self._give_up(oldest.pop(next(iter(oldest))))

    def close(self) -> None:
        """Give up whatever is still open: nobody will ask any more."""
        for kind in (self._live, self._ended, self._waiting):
            for metered in kind.values():
                self._give_up(metered)
            kind.clear()
        self._owed.clear()

    async def run(self) -> None:
        """Tell and ask until cancelled."""
        rested = _HEARTBEAT_SECONDS
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            rested += _PERIOD_SECONDS
            held = self._live or self._ended or self._waiting or self._owed
            busy = bool(held) and not self._away
            if busy or rested >= _HEARTBEAT_SECONDS:
                rested = 0.0
                try:
                    while await self.exchange():
                        pass
                except Exception as error:  # noqa: BLE001 - a bug here must not end metering
                    _log.exception("meter %s: a bug in telling it", self.label)
                    self._failed(error)

    async def exchange(self) -> bool:
        """Post one batch and take in the answer; tell whether there is more to post at once."""
        now = time.monotonic()
        events: list[Event] = []
        sent: list[Metered] = []
        # While the meter is away only an empty batch is sent, to see whether it is back.
        kinds = () if self._away else (self._ended, self._owed, self._live)
        for metered in [one for kind in kinds for one in kind.values()]:
            if news := metered.news(now):
                metered.told_at = now
                events += news
                sent.append(metered)
                if len(events) >= _MOST_EVENTS:
                    break
        places = [Place(place.label, place.ledger) for place in self._places]
        # What a handle holds now is what it is told of; it may go on while the batch travels.
        stages = [(m, m.stage, m.tokens) for m in sent]
        batch = Batch(self._name, places, events, self._received)
        try:
            answer = await self._post(_encoder.encode(batch))
        except (BackendError, TimeoutError, msgspec.MsgspecError) as error:
            self._failed(error)
            return False
        self._take(answer, stages)
        return len(events) >= _MOST_EVENTS

    async def _post(self, body: bytes) -> Answer:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            answer = await self._client.post(self._url, body, self._headers)
            try:
                read = await answer.read(_MOST_ANSWER_BYTES)
            finally:
                answer.close()
        if answer.status != _OK:
            raise BackendError(f"status {answer.status}: {read[:200].decode('utf-8', 'replace')}")
        return _checked(_decoder.decode(read))

    def _take(self, answer: Answer, stages: list[tuple[Metered, int, int]]) -> None:
        now = time.monotonic()
        if not self.up:
            _log.info("meter %s answers", self.label)
        self.up = True
        self._away = False
        self._failures = 0
        self._complained = ""
        self._answered_at = now
        self.period_seconds = answer.period_seconds
        if answer.meter != self._meter:
            if self._meter:  # this one was never told the beginnings of what was just sent
                stages = []
            self._begin_anew(answer.meter)
        for metered, stage, tokens in stages:
            metered.told = stage
            metered.told_tokens = tokens
            if stage == OVER:
                self._owed.pop(metered.id, None)
                if self._ended.pop(metered.id, None) is not None:
                    metered.told_at = now
                    self._waiting[metered.id] = metered
        unknown = set(answer.unknown)
        for place in self._places:
            if place.known and place.label in unknown:
                _log.error("meter %s has no ledger for backend %s", self.label, place.label)
            place.known = place.label not in unknown
        for observation in answer.observations:
            self._observe(observation)
        self.spendings += [one for one in answer.spendings if one.number > self._received]
        self._received = max(
            self._received,
            max((one.number for one in answer.observations), default=0),
            max((one.number for one in answer.spendings), default=0),
        )
        self._lose_patience(now)

    def _observe(self, observation: Observation) -> None:
        for kind in (self._waiting, self._ended):
            metered = kind.pop(observation.id, None)
            if metered is not None:
                if observation.method == "estimated":
                    metered.told = FORSAKEN  # no more need be said of it
                    self._give_up(metered)
                    return
                metered.microjoules = observation.microjoules
                metered.method = observation.method
                self.settled.append(metered)
                return
        if observation.id in self._live:  # it heard nothing of this one for too long
            self._live[observation.id].told = FORSAKEN

    def _begin_anew(self, meter: str) -> None:
        """Forget what an earlier meter was told."""
        if self._meter:
            _log.warning("meter %s was started anew; what it had not settled is lost", self.label)
            self._owed.clear()
        self._meter = meter
        self._received = 0
        self._drop(self._waiting, lambda _: True)
        for metered in (*self._live.values(), *self._ended.values()):
            metered.told = metered.told_tokens = 0

    def _lose_patience(self, now: float) -> None:
        oldest = now - _PATIENCE_SECONDS
        # In the order they were told of, so the first that is young enough ends the search.
        while self._waiting:
            metered = next(iter(self._waiting.values()))
            if metered.told_at > oldest:
                break
            self._give_up(self._waiting.pop(metered.id))
        if any(not place.known for place in self._places):
            self._drop(self._ended, lambda metered: not metered.place.known)

    def _failed(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said != self._complained:
            _log.warning("meter %s: %s; joules are estimated meanwhile", self.label, said)
        self._complained = said
        self.up = False
        self._failures += 1
        # One slow answer is chance, and a network may be gone for a moment.
        silent_seconds = time.monotonic() - self._answered_at
        if self._failures >= _FAILURES and silent_seconds > _FAILURES * _TIMEOUT_SECONDS:
            self._away = True
            self._drop(self._ended, lambda _: True)
            self._drop(self._waiting, lambda _: True)

    def _drop(self, kind: dict[int, Metered], which: Callable[[Metered], bool]) -> None:
        for number in [number for number, metered in kind.items() if which(metered)]:
            self._give_up(kind.pop(number))

    def _give_up(self, metered: Metered) -> None:
        # In a batch that was never answered it may have been heard of nonetheless.
        heard_of = metered.told_at and metered.told < OVER and metered.place.known
        if metered.ended and heard_of:
            owed = self._owed[metered.id] = copy.copy(metered)
            owed.owner = None
            if len(self._owed) > _MOST_WAITING:
                del self._owed[next(iter(self._owed))]
        metered.method = "estimated"
        self.dropped += metered.owner is not None
        self.settled.append(metered)


def _checked(answer: Answer) -> Answer:
    """Return an answer whose numbers can be. Raises BackendError."""
    told: tuple[Observation | Spending, ...] = (*answer.observations, *answer.spendings)
    if any(not (0 <= one.number < _LIMIT and 0 <= one.microjoules < _LIMIT) for one in told):
        raise BackendError("an answer with a number out of bounds")
    return answer
