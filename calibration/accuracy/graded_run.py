"""Asks backends questions with known answers, several samples each, and keeps every answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import Struct

from backends.client import BackendClient
from backends.errors import BackendError, BackendStatusError, BackendTimeout, InvalidResponse
from calibration.accuracy import grading
from calibration.accuracy.questions import GradedQuestion
from calibration.accuracy.results_file import GradedAnswer, ResultsFile, compute_run_id
from calibration.accuracy.scores import CorrectAnswerCounts
from calibration.endpoint.retry import (
    RETRYABLE_STATUSES,
    CollectError,
    FailureStats,
    RetryPolicy,
    describe_unreachable,
)
from calibration.endpoint.server import TargetServer
from gateway.utc_time import format_now

MAJORITY: Final = "majority"
MEAN: Final = "mean"
API_PATHS: Final = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_CONNECT_TIMEOUT_SECONDS: Final = 5.0
_ANSWER_TIMEOUT_SECONDS: Final = 900.0
_MAX_ANSWER_BYTES: Final = 32 << 20
_RETRY_SECONDS: Final = 0.5
_FIRST_ERROR_STATUS: Final = 400
_FIRST_SERVER_ERROR_STATUS: Final = 500


class _ChatMessage(Struct):
    content: str | None = None


class _CompletionChoice(Struct):
    message: _ChatMessage | None = None
    text: str | None = None
    finish_reason: str | None = None


class _CompletionUsage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _CompletionResponse(Struct):
    choices: list[_CompletionChoice]
    usage: _CompletionUsage | None = None


@dataclass(frozen=True, slots=True)
class GradedRunSettings:
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
    def run_id(self) -> str:
        """Name of the run: other settings, another run. More samples only add to it."""
        return compute_run_id(
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

    def build_request(self, question: GradedQuestion, sample: int) -> dict[str, Any]:
        """Return the body of one request, without the model's name."""
        text = question.build_prompt(self.suffix)
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


class GradedRun:
    """One run over all targets; `on_answer(model)` is called after each answer."""

    def __init__(
        self,
        targets: Sequence[tuple[TargetServer, str | None]],
        questions: Sequence[GradedQuestion],
        settings: GradedRunSettings,
        results: ResultsFile,
        on_answer: Callable[[str], None],
    ) -> None:
        """Take targets with their API key, and what the results file holds of this run."""
        self._targets = targets
        self._questions = questions
        self._settings = settings
        self._results = results
        self._on_answer = on_answer
        self.failure_stats = {target.name: FailureStats() for target, _ in targets}
        keys = {question.key for question in questions}
        self.answers = {
            given.answer_key: given
            for given in results.answers
            if given.run == settings.run_id and given.question in keys
        }
        self.answers_before = len(self.answers)

    def list_unanswered(self, model: str) -> list[tuple[GradedQuestion, int]]:
        """Return what is still to be asked of a model; first samples come first."""
        return [
            (question, sample)
            for sample in range(self._settings.samples)
            for question in self._questions
            if (model, question.key, sample) not in self.answers
        ]

    async def run(self) -> None:
        """Ask what is left, all backends at once. Raises CollectError, TargetError, OSError."""
        async with BackendClient(connect_seconds=_CONNECT_TIMEOUT_SECONDS) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for target, key in self._targets:
                        group.create_task(self._ask_target(target, key, client))
            except ExceptionGroup as group:
                raise _find_first_error(group) from None

    async def _ask_target(
        self, target: TargetServer, key: str | None, client: BackendClient
    ) -> None:
        left = iter(self.list_unanswered(target.name))
        try:
            served = (await target.fetch_server_info(client)).served_name
        except BackendError as error:
            raise CollectError(describe_unreachable(target, error)) from error
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        patience = RetryPolicy(target, self.failure_stats[target.name], _RETRY_SECONDS)

        async def ask_questions() -> None:
            for question, sample in left:
                body = {"model": served, **self._settings.build_request(question, sample)}
                ask = _QuestionRequest(
                    client, target, headers, msgspec.json.encode(body), self._settings.api
                )
                answer = await patience.call(ask.send)
                if answer is None and ask.refused is None:
                    self.failure_stats[target.name].given_up += 1
                    continue
                self._store_answer(target.name, question, sample, answer, ask.refused)

        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.concurrency):
                group.create_task(ask_questions())

    def _store_answer(
        self, model: str, question: GradedQuestion, sample: int, answer: Any, refused: str | None
    ) -> None:
        choice = answer.choices[0] if answer else _CompletionChoice()
        text = (choice.message.content if choice.message else choice.text) or ""
        found = question.extract_answer(text)
        usage = (answer.usage if answer else None) or _CompletionUsage()
        given = GradedAnswer(
            run=self._settings.run_id,
            model=model,
            question=question.key,
            sample=sample,
            text=text,
            found=found,
            correct=question.is_correct(found),
            finish=choice.finish_reason,
            refused=refused,
            tokens_in=usage.prompt_tokens,
            tokens_out=usage.completion_tokens,
            at=format_now(),
        )
        self._results.append_answer(given)
        self.answers[given.answer_key] = given
        self._on_answer(model)


def _find_first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return what went wrong first; the rest is what that brought about."""
    first = group.exceptions[0]
    return _find_first_error(first) if isinstance(first, ExceptionGroup) else first


@dataclass(slots=True)
class _QuestionRequest:
    """One request, sent as often as patience wants."""

    client: BackendClient
    target: TargetServer
    headers: Mapping[str, str]
    body: bytes
    api: str
    refused: str | None = None
    """The server's words where asking again is no use."""

    async def send(self) -> _CompletionResponse:
        url = self.target.at(API_PATHS[self.api])
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
                answer = await self.client.post(url, self.body, self.headers)
                try:
                    raw = await answer.read_body(_MAX_ANSWER_BYTES)
                finally:
                    answer.close()
        except TimeoutError:
            raise BackendTimeout(f"no answer within {_ANSWER_TIMEOUT_SECONDS:g} s") from None
        if answer.status >= _FIRST_ERROR_STATUS:
            if (
                answer.status < _FIRST_SERVER_ERROR_STATUS
                and answer.status not in RETRYABLE_STATUSES
            ):
                self.refused = f"{answer.status}: {raw[:300].decode('utf-8', 'replace')}"
            raise BackendStatusError(answer.status, raw)
        try:
            decoded = msgspec.json.decode(raw, type=_CompletionResponse)
        except msgspec.MsgspecError as error:
            raise InvalidResponse(f"not an answer of OpenAI's: {error}") from None
        if not decoded.choices:
            raise InvalidResponse("an answer without choices")
        return decoded


@dataclass(slots=True)
class AnswerTally:
    """What became of one model's questions."""

    asked: int = 0
    refused: int = 0
    no_answer_found: int = 0
    """Samples in which no answer was found; they count as wrong."""
    cut: int = 0
    """Samples that ran into max_tokens."""
    missing: int = 0


def grade_answers(
    models: Sequence[str],
    questions: Sequence[GradedQuestion],
    given: Mapping[tuple[str, str, int], GradedAnswer],
    settings: GradedRunSettings,
) -> tuple[CorrectAnswerCounts, dict[str, AnswerTally]]:
    """Grade what was answered; a question whose prompt the server refused has no mark."""
    marks, tallies = CorrectAnswerCounts(), {model: AnswerTally() for model in models}
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
                found = [question.extract_answer(one.text) for one in have]
                tally.no_answer_found += found.count(None)
                tally.cut += sum(one.finish == "length" for one in have)
                marks.add_mark(
                    model, question.task, _grade_question(question, found, settings.score)
                )
    return marks, tallies


def _grade_question(question: GradedQuestion, found: Sequence[str | None], score: str) -> float:
    if score == MAJORITY:
        return float(question.is_correct(grading.find_majority_answer(question.kind, found)))
    return sum(question.is_correct(one) for one in found) / len(found)
