r"""Finding the answer in what a model wrote, and whether it is the right one. Pure; no network.

Rules, the first that finds something wins; of several finds the last counts. What stands in
<think>…</think> is not the answer.

    choice   "answer is (B)", "Answer: b"; \boxed{B}; a text or first line that is a letter, or
             begins with a letter and `.`, `)` or `:`; the last letter standing alone (A as an
             article is none). Letters are those that the prompt lists, else A to E.
    number   GSM8K's "#### 42"; \boxed{42}; "answer is 42"; the last number. Of "5 + 7 = 12" the 12
             counts; \frac{1}{2} is 0.5; 1,000 and $5 and 50% are 1000 and 5 and 50; equal within
             1e-6, relatively.
    exact    what follows "answer is" or "Answer:" on its line, or the next, else all; compared
             without case, accents' spelling (NFKC), punctuation, a/an/the and surplus spaces.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Final


class QuestionKind(StrEnum):
    """How a question is to be graded."""

    CHOICE = "choice"
    NUMBER = "number"
    EXACT = "exact"


_THOUGHT: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ANSWER: Final = re.compile(
    r"(?i:\b(?:answer|choice|option)[\s*_`]*(?:is|was|would\s+be|should\s+be|must\s+be)\b\s*:?|"
    r"\b(?:answer|choice)[\s*_`]*[:=])(?=(?P<rest>[^\n]*))"
)
_BOXED: Final = re.compile(r"\\boxed\{(?:\\text\{)?([^{}]*)\}")
_FRACTION: Final = re.compile(r"(?:(\d+)\s*)?\\[dt]?frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)(\d))")
_CLAUSE: Final = re.compile(
    r"[.!?](?=\s)|[;\n]|,(?!\d)|(?<=[\w.%]) \(|\b(?:as|because|for|given|since|so|which)\b"
)
_HASHES: Final = re.compile(r"####\s*([^\n]*)")
_ANSWER_DECORATION: Final = r"[\s*_`\"'($\[\\{]*"
_OPTION: Final = re.compile(r"^\s*[*(\[]*([A-Z])[.):\]]", re.MULTILINE)
_NUMBER: Final = re.compile(
    r"(?<![\w.])[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:/\d+)?"
    r"|(?<![\w.])[-+]?\$?\.\d+"
)
_DEFAULT_LETTERS: Final = "ABCDE"
_MAX_LETTERS: Final = 12
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION: Final = str.maketrans(dict.fromkeys(string.punctuation, " "))
_AFTER_A_LETTER: Final = re.compile(
    r" +(?:and|as|because|but|by|due|for|given|if|is|not|or|since|so|that|which|while|with)\b"
)
_AFTER_A_SMALL_LETTER: Final = r"(?=\W*\Z|\s*[.,;:)\]}*](?!\w))"
_EMPTY: Final = " .*_`:\t"
_RELATIVE_TOLERANCE: Final = Fraction(1, 10**6)


def find_option_letters(prompt: str) -> str:
    """Return the letters that a prompt lists as options ("A. …", "(B) …"), else A to E."""
    found = dict.fromkeys(_OPTION.findall(prompt))
    expected = string.ascii_uppercase[: len(found)]
    listed = "".join(sorted(found))
    return listed if 1 < len(found) <= _MAX_LETTERS and listed == expected else _DEFAULT_LETTERS


def extract_answer(kind: QuestionKind, text: str, prompt: str = "") -> str | None:
    """Return the answer in a model's text, in the form that `normalise` gives; None if none."""
    text = _THOUGHT.sub(" ", text).strip()
    if kind is QuestionKind.CHOICE:
        return _extract_choice(text, find_option_letters(prompt))
    return _extract_number(text) if kind is QuestionKind.NUMBER else _extract_exact(text)


def parse_gold_answer(kind: QuestionKind, answer: str) -> str | None:
    """Return a question's own answer in the compared form; None where it is no such answer."""
    if kind is QuestionKind.CHOICE:
        match = re.fullmatch(r"\W*([A-Za-z])\W*", answer)
        return match.group(1).upper() if match else None
    if kind is QuestionKind.NUMBER:
        return _extract_number(answer)
    return normalise_text(answer) or None


def is_same_answer(kind: QuestionKind, found: str | None, right: str) -> bool:
    """Tell whether an extracted answer equals a gold one."""
    if found is None:
        return False
    if kind is not QuestionKind.NUMBER:
        return found == right
    one, other = Fraction(found), Fraction(right)
    return abs(one - other) <= _RELATIVE_TOLERANCE * max(abs(one), abs(other))


def find_majority_answer(kind: QuestionKind, found: Sequence[str | None]) -> str | None:
    """Return the answer that most samples give, the earliest of equals; None where none do."""
    votes: Counter[str] = Counter()
    for answer in found:
        if answer is None:
            continue
        # Two spellings of a number vote together.
        known = next((seen for seen in votes if is_same_answer(kind, answer, seen)), answer)
        votes[known] += 1
    return votes.most_common(1)[0][0] if votes else None


def normalise_text(text: str) -> str:
    """Return a text without case, punctuation, articles and surplus spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    stripped = " ".join(_ARTICLES.sub(" ", plain.translate(_PUNCTUATION)).split())
    return stripped or " ".join(plain.split())


def _extract_choice(text: str, known: str) -> str | None:
    one = f"([{known}])"
    in_words = rf"{_ANSWER_DECORATION}(?:(?i:option|choice)\s*)?{_ANSWER_DECORATION}{one}(?![\w'])"
    small = rf"{in_words.replace(one, one.lower())}{_AFTER_A_SMALL_LETTER}"
    told = [
        found.group(1).upper()
        for match in _ANSWER.finditer(text)
        if ((found := re.match(in_words, match["rest"])) and not _is_article(match["rest"], found))
        or (found := re.match(small, match["rest"]))
    ]
    if told:
        return told[-1]
    boxed: list[str] = [inner.strip() for inner in _BOXED.findall(text)]
    if boxed and boxed[-1] in tuple(known):
        return boxed[-1]
    first = re.match(rf"{_ANSWER_DECORATION}{one}(?:\W*\Z|[.):\]]|[^\w\n]*\n)", text)
    if first:
        return first.group(1)
    alone = [
        match.group(1)
        for match in re.finditer(rf"(?<![\w'’]){one}(?![\w'’])", text)
        if not _is_article(text, match)
    ]
    if alone:
        return alone[-1]
    lower = re.fullmatch(rf"\W*([{known.lower()}])\W*", text)
    return lower.group(1).upper() if lower else None


def _is_article(text: str, match: re.Match[str]) -> bool:
    """Tell whether a letter A is the article of a word: "A person who …"."""
    if match.group(1) != "A":
        return False
    rest = text[match.end() :]
    return bool(re.match(" +[a-z]", rest)) and not _AFTER_A_LETTER.match(rest)


def _extract_number(text: str) -> str | None:
    text = _FRACTION.sub(_flatten_fraction, text)
    for pattern in (_HASHES, _BOXED):
        for inner in reversed(pattern.findall(text)):
            if (value := _parse_number(inner, first=True)) is not None:
                return value
    for match in reversed(list(_ANSWER.finditer(text))):
        if (value := _parse_number(match["rest"], first=True)) is not None:
            return value
    return _parse_number(text, first=False)


def _flatten_fraction(match: re.Match[str]) -> str:
    r"""Return \frac{1}{2} as 1/2, and 2\frac{1}{2} as 5/2."""
    whole, *parts = match.groups()
    above, below = (int(part) for part in parts if part is not None)
    return f"{int(whole or 0) * below + above}/{below}"


def _find_equation_result(text: str) -> str:
    """Return what an equation comes to: 12 of "5 + 7 = 12, as …"; another text as it is."""
    sides = _CLAUSE.split(text, maxsplit=1)[0].split("=")
    return next((side for side in sides if len(_NUMBER.findall(side)) == 1), text)


def _parse_number(text: str, *, first: bool) -> str | None:
    """Return the first (an equation's result) or last number of a text, as a fraction."""
    text = text.replace("−", "-").replace("–", "-").replace("\\$", "$")
    found = _NUMBER.findall(_find_equation_result(text) if first else text)
    for raw in found if first else reversed(found):
        plain = raw.replace(",", "").replace("$", "")
        try:
            return str(Fraction(plain))
        except (ValueError, ZeroDivisionError):
            continue
    return None


def _find_next_line(text: str, at: int) -> str:
    """Return the first line that says something after a place."""
    return next((line for line in text[at:].splitlines() if line.strip(_EMPTY)), "")


def _extract_exact(text: str) -> str | None:
    told = [
        rest
        for match in _ANSWER.finditer(text)
        if (rest := match["rest"].strip(_EMPTY) or _find_next_line(text, match.end()))
    ]
    boxed = _BOXED.findall(text)
    pick = told[-1] if told else boxed[-1] if boxed else text
    return normalise_text(pick) or None
