"""Questions with known answers: what is asked, of which kind, and what is right."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from calibration.accuracy import grading
from calibration.accuracy.grading import Kind
from calibration.accuracy.labels import task_of
from calibration.tables.columns import BadInput
from calibration.tables.records import Row, Table

SUFFIXES: Final = {
    Kind.CHOICE: 'End with "The answer is X", where X is the letter.',
    Kind.NUMBER: 'End with "The answer is N", where N is the number.',
    Kind.EXACT: 'End with a line "Answer: " and nothing but the answer after it.',
}
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `key` names its content, `answers` are in the compared form."""

    key: str
    prompt: str
    task: str
    kind: Kind
    answers: tuple[str, ...]

    def found(self, text: str) -> str | None:
        """Return the answer in a model's text."""
        return grading.extract(self.kind, text, self.prompt)

    def right(self, found: str | None) -> bool:
        """Tell whether an extracted answer is one of the right ones."""
        return any(grading.same(self.kind, found, answer) for answer in self.answers)

    def asked(self, suffix: str | None) -> str:
        """Return the text to send."""
        extra = SUFFIXES[self.kind] if suffix == AUTO else suffix
        return f"{self.prompt}\n\n{extra}" if extra else self.prompt


def of_table(table: Table, kind: str | None, depth: int | None = None) -> list[Question]:
    """Read prompt, answer, task and kind; `kind` stands in where a row has none.

    Raises BadInput naming the row.
    """
    table.needs("prompt", "answer")
    found: dict[str, Question] = {}
    for row in table.rows:
        question = _question(row, kind, depth)
        if question.key in found:
            raise BadInput(f"{row.place}: the same question stands in the file before")
        found[question.key] = question
    return list(found.values())


def some(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """Return at most `limit` questions, drawn by `seed`, in the file's order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    places = Random(seed).sample(range(len(questions)), limit)  # noqa: S311 - to be repeatable
    return [questions[place] for place in sorted(places)]


def _question(row: Row, default: str | None, depth: int | None) -> Question:
    prompt, answer = row.values.get("prompt", ""), row.values.get("answer", "")
    if not isinstance(prompt, str) or not prompt.strip():
        raise BadInput(f"{row.place}: column 'prompt' holds no text")
    named = str(row.values.get("kind", "")).strip() or default
    if named is None:
        raise BadInput(f"{row.place}: of which kind is it? --kind {'|'.join(Kind)}, or a column")
    try:
        kind = Kind(named)
    except ValueError:
        raise BadInput(f"{row.place}: kind {named!r} is none of {', '.join(Kind)}") from None
    answers = tuple(_gold(row, kind, one) for one in (answer if _many(answer) else [answer]))
    task = task_of(row, depth)
    key = hashlib.sha256("\x1f".join((prompt, task, kind, *answers)).encode()).hexdigest()[:16]
    return Question(key, prompt, task, kind, answers)


def _many(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer)


def _gold(row: Row, kind: Kind, answer: Any) -> str:
    plain = isinstance(answer, str | int | float) and not isinstance(answer, bool)
    right = grading.gold(kind, str(answer)) if plain else None
    if right is None or (kind is Kind.CHOICE and right not in _letters(row)):
        wants = {Kind.CHOICE: "a letter of its options", Kind.NUMBER: "a number"}.get(kind, "text")
        raise BadInput(f"{row.place}: answer {answer!r} is not {wants}, as kind {kind} has it")
    return right


def _letters(row: Row) -> str:
    return grading.letters(row.values["prompt"])
