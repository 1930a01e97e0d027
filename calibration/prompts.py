"""The prompts that are measured: random ones of a wanted length, or a file of somebody's."""

import csv
import gzip
import io
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

# Short, so that most tokenisers have one token for each; frequent, so that all know them.
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
_TRIES: Final = 6
_PAD_MOST: Final = 64
_GUESSED: Final = ("prompt", "instruction", "question", "text")


class PromptFileError(ValueError):
    """A file of prompts that cannot be used; the message says where and why."""


class Maker:
    """Random prompts of a wanted number of tokens; the same key gives the same prompt.

    `count` returns the tokens that the measured model has for a text, exactly or nearly. A prompt
    begins with random words, so no two share a prefix that a server could have cached.
    """

    def __init__(self, count: Callable[[str], Awaitable[int]], seed: int) -> None:
        self._count = count
        self._seed = seed
        self._tokens_per_word = 1.0

    def rough(self, tokens: int, key: str) -> str:
        """Return a prompt of about so many tokens, without asking."""
        words = self._words(tokens, key)
        return " ".join(words[: max(1, round(tokens / self._tokens_per_word))])

    async def exact(self, tokens: int, key: str) -> str:
        """Return a prompt of so many tokens, or as near as words allow. Raises what `count` does.

        Prefers falling short to going over: the context may have no room.
        """
        words = self._words(tokens, key)
        size = max(1, min(len(words), round(tokens / self._tokens_per_word)))
        best, best_gap = " ".join(words[:1]), tokens
        for _ in range(_TRIES):
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
        if 0 < best_gap <= _PAD_MOST:
            padded = best + " a" * best_gap
            if await self._count(padded) <= tokens:
                return padded
        return best

    def _words(self, tokens: int, key: str) -> list[str]:
        """Return more words than will be needed."""
        rng = Random(f"{self._seed}:{key}")  # noqa: S311 - to be repeatable
        return rng.choices(WORDS, k=2 * tokens)


def read_prompts(path: Path, column: str | None = None) -> list[str]:
    """Return the prompts of a CSV, JSONL or JSON-list file, gzip too.

    Without `column` the first of prompt, instruction, question, text is taken; an Alpaca-style
    `input` beside `instruction` is added to it. Raises PromptFileError and OSError.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError) as error:
            raise PromptFileError(f"{path}: {error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    prompts = [_prompt(record, column, f"{path}:{line}") for line, record in _records(path, text)]
    if not prompts:
        raise PromptFileError(f"{path}: no prompts in it")
    return prompts


def _records(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line or place, record)."""
    opening = text.lstrip()[:1]
    if opening == "[":
        yield from enumerate(_decoded(text, str(path), list[Any]), 1)
    elif opening == "{":
        for line, one in enumerate(text.splitlines(), 1):
            if one.strip():
                yield line, _decoded(one, f"{path}:{line}", dict[str, Any])
    else:
        rows = csv.DictReader(io.StringIO(text), strict=True)
        try:
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise PromptFileError(f"{path}:{rows.line_num + 1}: {error}") from None


def _decoded(text: str, where: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PromptFileError(f"{where}: {error}") from None


def _prompt(record: Any, column: str | None, where: str) -> str:
    if not isinstance(record, Mapping):
        raise PromptFileError(f"{where}: not an object")
    name = column or next((guess for guess in _GUESSED if guess in record), None)
    if name is None or name not in record:
        have = ", ".join(str(key) for key in list(record)[:12])
        wanted = repr(name) if name else "for prompts (name it with --prompt-column)"
        raise PromptFileError(f"{where}: no column {wanted}; there are: {have}")
    prompt = record[name]
    if not isinstance(prompt, str) or not prompt.strip():
        raise PromptFileError(f"{where}: column {name!r} holds no text")
    more = record.get("input") if name == "instruction" else None
    return f"{prompt}\n\n{more}" if isinstance(more, str) and more.strip() else prompt
