"""Asks backends questions with known answers, several samples each, and keeps every answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from backends.client import Client
from backends.errors import BackendError, BadAnswer, Refused, Silent
from calibration.accuracy import grading
from calibration.accuracy.questions import Question
from calibration.accuracy.results_file import Given, Results, run_name
from calibration.accuracy.scores import Marks
from calibration.endpoint.retry import CollectError, Patience, Trouble, unreached
from calibration.endpoint.server import Target

MAJORITY: Final = "majority"
MEAN: Final = "mean"
PATHS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 900.0
_ANSWER_BYTES: Final = 32 << 20
_RETRY_SECONDS: Final = 0.5
_BAD: Final = 400
_SERVER_ERROR: Final = 500
_AGAIN: Final = frozenset({408, 409, 425, 429})


class _Message(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the answers, beside the questions, and how fast they are asked for."""

    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int = 0
    api: str = "chat"
    suffix: str | None = None
    system: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    score: str = MEAN

    @property
    def run(self) -> str:
        """Name of the run: other settings, another run. More samples only add to it."""
        return run_name(
            {
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "seed": self.seed,
                "api": self.api,
                "suffix": self.suffix,
                "system": self.system,
                "body": dict(self.body),
            }
        )

    def request(self, question: Question, sample: int) -> dict[str, Any]:
        """Return the body of one request, without the model's name."""
        text = question.asked(self.suffix)
        asked: dict[str, Any] = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed + sample,
        }
        if self.api == "chat":
            system = [{"role": "system", "content": self.system}] if self.system else []
            asked["messages"] = [*system, {"role": "user", "content": text}]
        else:
            asked["prompt"] = f"{self.system}\n\n{text}" if self.system else text
        return {**asked, **self.body}


class Exam:
    """One run over all targets; `on_answer(model)` is called after each answer."""

    def __init__(
        self,
        targets: Sequence[tuple[Target, str | None]],
        questions: Sequence[Question],
        settings: Settings,
        results: Results,
        on_answer: Callable[[str], None],
    ) -> None:
        """Take targets with their API key, and what the results file holds of this run."""
        self._targets = targets
        self._questions = questions
        self._settings = settings
        self._results = results
        self._on_answer = on_answer
        self.trouble = {target.name: Trouble() for target, _ in targets}
        keys = {question.key for question in questions}
        self.given = {
            given.key: given
            for given in results.given
            if given.run == settings.run and given.question in keys
        }
        self.before = len(self.given)

    def left(self, model: str) -> list[tuple[Question, int]]:
        """Return what is still to be asked of a model; first samples come first."""
        return [
            (question, sample)
            for sample in range(self._settings.samples)
            for question in self._questions
            if (model, question.key, sample) not in self.given
        ]

    async def run(self) -> None:
        """Ask what is left, all backends at once. Raises CollectError, TargetError, OSError."""
        async with Client(connect_seconds=_CONNECT_SECONDS) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for target, key in self._targets:
                        group.create_task(self._examine(target, key, client))
            except ExceptionGroup as group:
                raise _first(group) from None

    async def _examine(self, target: Target, key: str | None, client: Client) -> None:
        left = iter(self.left(target.name))
        try:
            served = (await target.describe(client)).served_name
        except BackendError as error:
            raise CollectError(unreached(target, error)) from error
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        patience = Patience(target, self.trouble[target.name], _RETRY_SECONDS)

        async def work() -> None:
            for question, sample in left:
                body = {"model": served, **self._settings.request(question, sample)}
                ask = _Ask(client, target, headers, msgspec.json.encode(body), self._settings.api)
                answer = await patience.insist(ask.send)
                if answer is None and ask.refused is None:
                    self.trouble[target.name].given_up += 1
                    continue
                self._keep(target.name, question, sample, answer, ask.refused)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.concurrency):
                group.create_task(work())

    def _keep(
        self, model: str, question: Question, sample: int, answer: Any, refused: str | None
    ) -> None:
        choice = answer.choices[0] if answer else _Choice()
        text = (choice.message.content if choice.message else choice.text) or ""
        found = question.found(text)
        usage = (answer.usage if answer else None) or _Usage()
        given = Given(
            run=self._settings.run,
            model=model,
            question=question.key,
            sample=sample,
            text=text,
            found=found,
            correct=question.right(found),
            finish=choice.finish_reason,
            refused=refused,
            tokens_in=usage.prompt_tokens,
            tokens_out=usage.completion_tokens,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        self._results.append(given)
        self.given[given.key] = given
        self._on_answer(model)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return what went wrong first; the rest is what that brought about."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


@dataclass(slots=True)
class _Ask:
    """One request, sent as often as patience wants."""

    client: Client
    target: Target
    headers: Mapping[str, str]
    body: bytes
    api: str
    refused: str | None = None
    """The server's words where asking again is no use."""

    async def send(self) -> _Answer:
        url = self.target.at(PATHS[self.api])
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self.client.post(url, self.body, self.headers)
                try:
                    raw = await answer.read(_ANSWER_BYTES)
                finally:
                    answer.close()
        except TimeoutError:
            raise Silent(f"no answer within {_ANSWER_SECONDS:g} s") from None
        if answer.status >= _BAD:
            if answer.status < _SERVER_ERROR and answer.status not in _AGAIN:
                self.refused = f"{answer.status}: {raw[:300].decode('utf-8', 'replace')}"
            raise Refused(answer.status, raw)
        try:
            decoded = msgspec.json.decode(raw, type=_Answer)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"not an answer of OpenAI's: {error}") from None
        if not decoded.choices:
            raise BadAnswer("an answer without choices")
        return decoded


@dataclass(slots=True)
class Tally:
    """What became of one model's questions."""

    asked: int = 0
    refused: int = 0
    no_answer_found: int = 0
    """Samples in which no answer was found; they count as wrong."""
    cut: int = 0
    """Samples that ran into max_tokens."""
    missing: int = 0


def grade(
    models: Sequence[str],
    questions: Sequence[Question],
    given: Mapping[tuple[str, str, int], Given],
    settings: Settings,
) -> tuple[Marks, dict[str, Tally]]:
    """Grade what was answered; a question whose prompt the server refused has no mark."""
    marks, tallies = Marks(), {model: Tally() for model in models}
    for model in models:
        tally = tallies[model]
        for question in questions:
            samples = [given.get((model, question.key, at)) for at in range(settings.samples)]
            have = [one for one in samples if one is not None]
            tally.asked += 1
            if len(have) < len(samples):
                tally.missing += 1
            elif any(one.refused is not None for one in have):
                tally.refused += 1
            else:
                # Graded anew: the rules may be better than those of the day it was asked.
                found = [question.found(one.text) for one in have]
                tally.no_answer_found += found.count(None)
                tally.cut += sum(one.finish == "length" for one in have)
                marks.add(model, question.task, _mark(question, found, settings.score))
    return marks, tallies


def _mark(question: Question, found: Sequence[str | None], score: str) -> float:
    if score == MAJORITY:
        return float(question.right(grading.majority(question.kind, found)))
    return sum(question.right(one) for one in found) / len(found)
