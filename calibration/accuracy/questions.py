"""Questions with known answers: what is asked, of which kind, and what is right."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from calibration.accuracy import grading
from calibration.accuracy.grading import QuestionKind
from calibration.accuracy.labels import read_task
from calibration.tables.columns import BadInput
from calibration.tables.records import RecordTable, TableRow

ANSWER_SUFFIXES: Final = {
    QuestionKind.CHOICE: 'End with "The answer is X", where X is the letter.',
    QuestionKind.NUMBER: 'End with "The answer is N", where N is the number.',
    QuestionKind.EXACT: 'End with a line "Answer: " and nothing but the answer after it.',
}
AUTO_SUFFIX: Final = "auto"


@dataclass(frozen=True, slots=True)
class GradedQuestion:
    """One question; `key` names its content, `answers` are in the compared form."""

    key: str
    prompt: str
    task: str
    kind: QuestionKind
    answers: tuple[str, ...]

    def extract_answer(self, text: str) -> str | None:
        """Return the answer in a model's text."""
        return grading.extract_answer(self.kind, text, self.prompt)

    def is_correct(self, found: str | None) -> bool:
        """Tell whether an extracted answer is one of the right ones."""
        return any(grading.is_same_answer(self.kind, found, answer) for answer in self.answers)

    def build_prompt(self, suffix: str | None) -> str:
        """Return the text to send."""
        extra = ANSWER_SUFFIXES[self.kind] if suffix == AUTO_SUFFIX else suffix
        return f"{self.prompt}\n\n{extra}" if extra else self.prompt


def read_questions(
    table: RecordTable, kind: str | None, depth: int | None = None
) -> list[GradedQuestion]:
    """Read prompt, answer, task and kind; `kind` stands in where a row has none.

    Raises BadInput naming the row.
    """
    table.require_columns("prompt", "answer")
    found: dict[str, GradedQuestion] = {}
    for row in table.rows:
        question = _parse_question(row, kind, depth)
        if question.key in found:
            raise BadInput(f"{row.place}: the same question stands in the file before")
        found[question.key] = question
    return list(found.values())


def sample_questions(
    questions: Sequence[GradedQuestion], limit: int | None, seed: int
) -> list[GradedQuestion]:
    """Return at most `limit` questions, drawn by `seed`, in the file's order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    places = Random(seed).sample(range(len(questions)), limit)  # noqa: S311 - to be repeatable
    return [questions[place] for place in sorted(places)]


def _parse_question(row: TableRow, default: str | None, depth: int | None) -> GradedQuestion:
    prompt, answer = row.values.get("prompt", ""), row.values.get("answer", "")
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadInput(f"{row.place}: column 'prompt' holds no text")
    named = str(row.values.get("kind", "")).strip() or default
    if named is None:
        raise BadInput(
            f"{row.place}: of which kind is it? --kind {'|'.join(QuestionKind)}, or a column"
        )
    try:
        kind = QuestionKind(named)
    except ValueError:
        raise BadInput(
            f"{row.place}: kind {named!r} is none of {', '.join(QuestionKind)}"
        ) from None
    answers = tuple(
        _parse_gold_answer(row, kind, one)
        for one in (answer if _is_answer_list(answer) else [answer])
    )
    task = read_task(row, depth)
    key = hashlib.sha256("\x1f".join((prompt, task, kind, *answers)).encode()).hexdigest()[:16]
    return GradedQuestion(key, prompt, task, kind, answers)


def _is_answer_list(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer)


def _parse_gold_answer(row: TableRow, kind: QuestionKind, answer: Any) -> str:
    plain = isinstance(answer, str | int | float) and not isinstance(answer, bool)
    right = grading.parse_gold_answer(kind, str(answer)) if plain else None
    if right is None or (kind is QuestionKind.CHOICE and right not in _find_option_letters(row)):
        wants = {
            QuestionKind.CHOICE: "a letter of its options",
            QuestionKind.NUMBER: "a number",
        }.get(kind, "text")
        raise BadInput(f"{row.place}: answer {answer!r} is not {wants}, as kind {kind} has it")
    return right


def _find_option_letters(row: TableRow) -> str:
    return grading.find_option_letters(row.values["prompt"])
