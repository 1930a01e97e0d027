"""Prompts to measure: random ones of a given length, or those of a user's file."""

import csv
import gzip
import io
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from calibration.tables.columns import BadInput
from gateway.tokens import TokenCounter

# Short and frequent, so that most tokenisers encode each as one token.
WORDS: Final = tuple(
    """
    able acid age air also area army away baby back ball band bank base bath bear beat bed bell
    best bill bird blood blue boat body bone book born both box boy bread brown build burn bus busy
    cake call camp can card care case cash cat cell chair child city clean clear clock close cloth
    cloud club coal coast coat cold come cook cool copy corn cost cover cow crop cross crowd cry
    cup cut dance dark data date day dead deal deep desk door doubt down draw dream dress drink
    drive drop dry due dust duty each ear early earth east easy edge egg eight else empty end
    equal even ever exact eye face fact fair fall farm fast fear feel few field fight fill film
    find fine fire first fish five flag flat floor flow fly fold food foot force form four free
    fresh front fruit full game gas gate gift girl give glass goal gold good grain grass great
    green grey group grow guide gun hair half hall hand happy hard hat head hear heart heat heavy
    help here high hill hold hole home hope horse hot hotel hour house human ice idea iron item
    job join judge jump just keep key kind king knee know lady lake land large last late law lead
    leaf learn leave left leg less level life lift light like limit line list live local lock long
    loss lot loud love low luck lunch main make man map mark meal mean meat meet metal mild milk
    mind mine mix model money month moon more most motor mouth move much music name near neck need
    never new news next nice night nine noise north nose note now oak ocean oil old once one only
    open order other out own page pain paint pair paper park part party past path peace pen
    phone piece place plan plant plate play point poor post power press price print proof pull
    push quick quiet race rain raise range rate reach read real red rest rice rich ride right ring
    rise river road rock roof room root rose round rule run safe sail salt same sand save scale
    sea seat seed sell send seven shape share sharp sheep shelf ship shirt shoe shop short show
    sick side sign silk since sing six size skin sky sleep slow small smile smoke snow soft soil
    some song soon sort soul south space speak speed spoon staff stage stand star state steam
    steel step stick still stone stop store storm story such sugar suit sun sure sweet table
    tail take talk tall taste team tell ten test text thick thin thing third three tide time
    tired today tooth total touch town trade train tree true trust try turn two type under unit
    upper use usual value very view visit voice wait walk wall want war warm wash watch water
    wave way weak wear week well west wheel while white whole why wide wife wild wind wine wing
    winter wise wish woman wood word work world worth write year yes young zero
    """.split()  # noqa: SIM905 - 450 lines otherwise
)
_MAX_ATTEMPTS: Final = 6
_MAX_PADDING_TOKENS: Final = 64
_USUAL_PROMPT_COLUMNS: Final = ("prompt", "instruction", "question", "text")
_MAX_COLUMNS_SHOWN: Final = 12
_MAX_FIELD_CHARS: Final = 1 << 27

CHAT_OVERHEAD_TOKENS: Final = 7
"""Tokens that the gateway adds to a chat of one message."""


class PromptFileError(BadInput):
    """A file of prompts that cannot be used; the message says where and why."""


class PromptGenerator:
    """Random prompts of a wanted number of tokens; the same key gives the same prompt.

    `count` returns the tokens that the measured model has for a text, exactly or nearly. A prompt
    begins with random words, so no two share a prefix that a server could have cached.
    """

    def __init__(self, count: Callable[[str], Awaitable[int]], seed: int) -> None:
        self._count = count
        self._seed = seed
        self._tokens_per_word = 1.0

    def generate_approximate(self, tokens: int, key: str) -> str:
        """Return a prompt of about so many tokens, without counting them."""
        words = self._draw_words(tokens, key)
        return " ".join(words[: max(1, round(tokens / self._tokens_per_word))])

    async def generate_exact(self, tokens: int, key: str) -> str:
        """Return a prompt of so many tokens, or as near as words allow. Raises what `count` does.

        Prefers falling short to going over: the context may have no room.
        """
        words = self._draw_words(tokens, key)
        size = max(1, min(len(words), round(tokens / self._tokens_per_word)))
        best, best_gap = " ".join(words[:1]), tokens
        for _ in range(_MAX_ATTEMPTS):
            text = " ".join(words[:size])
            gap = tokens - await self._count(text)
            if not gap:
                self._tokens_per_word = tokens / size
                return text
            if 0 < gap < best_gap or best_gap < 0:
                best, best_gap = text, gap
            per_word = max(0.25, (tokens - gap) / size)
            step = round(gap / per_word) or (1 if gap > 0 else -1)
            size = max(1, min(len(words), size + step))
        if 0 < best_gap <= _MAX_PADDING_TOKENS:
            padded = best + " a" * best_gap
            if await self._count(padded) <= tokens:
                return padded
        return best

    def _draw_words(self, tokens: int, key: str) -> list[str]:
        """Return more words than will be needed."""
        rng = Random(f"{self._seed}:{key}")  # noqa: S311 - to be repeatable
        return rng.choices(WORDS, k=2 * tokens)


class PromptRecord(NamedTuple):
    """One record of a file; `values` is None where it is not an object, and `problem` says why."""

    place: str
    values: Mapping[str, Any] | None
    problem: str = ""


def count_prompt_tokens(counter: TokenCounter, prompt: str) -> int:
    """Return the tokens that the gateway counts for a chat of this one message."""
    return counter.count_tokens(prompt) + CHAT_OVERHEAD_TOKENS


def read_prompts(path: Path, column: str | None = None) -> list[str]:
    """Return the prompts of a file, by `extract_prompt`; a bad record is refused.

    Raises PromptFileError and OSError.
    """
    prompts = []
    for record in read_records(path):
        try:
            prompts.append(extract_prompt(record, column))
        except PromptFileError as error:
            raise PromptFileError(f"{record.place}: {error}") from None
    if not prompts:
        raise PromptFileError(f"{path}: no prompts in it")
    return prompts


def find_prompt_column(values: Mapping[str, Any], column: str | None) -> str | None:
    """Return the column with the prompts: the one named, else the first usual name; or None."""
    names = _USUAL_PROMPT_COLUMNS if column is None else (column,)
    return next((name for name in names if name in values), None)


def extract_prompt(record: PromptRecord, column: str | None = None) -> str:
    """Return a record's prompt; an Alpaca-style `input` beside `instruction` is added to it.

    Raises PromptFileError, which does not name the place.
    """
    values = record.values
    if values is None:
        raise PromptFileError(record.problem)
    name = find_prompt_column(values, column)
    if name is None:
        have = ", ".join(str(key) for key in list(values)[:_MAX_COLUMNS_SHOWN])
        wanted = repr(column) if column else "for prompts (name it with --prompt-column)"
        raise PromptFileError(f"no column {wanted}; there are: {have}")
    prompt = values[name]
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptFileError(f"column {name!r} holds no text")
    more = values.get("input") if name == "instruction" else None
    return f"{prompt}\n\n{more}" if isinstance(more, str) and more.strip() else prompt


def read_records(path: Path) -> Iterator[PromptRecord]:
    """Yield the records of a CSV (comma, semicolon or tab), JSONL or JSON-list file, gzip too.

    Raises PromptFileError for a file that is none of them, and OSError.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise PromptFileError(f"{path}: {error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    opening = text.lstrip()[:1]
    if opening == "[":
        try:
            whole = msgspec.json.decode(text, type=list[Any])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise PromptFileError(f"{path}: {error}") from None
        for at, one in enumerate(whole, 1):
            values = one if isinstance(one, dict) else None
            yield PromptRecord(f"{path}:{at}", values, "not an object")
    elif opening == "{":
        for at, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _parse_line(f"{path}:{at}", line)
    else:
        yield from _parse_csv(path, text)


def _parse_line(place: str, line: str) -> PromptRecord:
    try:
        return PromptRecord(place, msgspec.json.decode(line, type=dict[str, Any]))
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
        return PromptRecord(place, None, f"not a JSON object: {error}")


def _parse_csv(path: Path, text: str) -> Iterator[PromptRecord]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    separator = max(",\t;", key=text.lstrip().partition("\n")[0].count)
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        for row in rows:
            place = f"{path}:{rows.line_num}"
            if None in row:
                raise PromptFileError(f"{place}: more fields than the header has")
            yield PromptRecord(place, row)
    except csv.Error as error:
        raise PromptFileError(f"{path}:{rows.line_num + 1}: {error}") from None
