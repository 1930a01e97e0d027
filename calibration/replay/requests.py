"""Requests to replay: the gateway's decision log, or a file of prompts. Bad lines are counted."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from calibration.replay import decision_log_reader as recorded
from calibration.replay.decision_log_reader import (
    MAX_TOKEN_COUNT,
    BadLine,
    LeftOut,
    RecordedRequest,
)
from calibration.tables import records as table
from calibration.tables.columns import BadInput
from calibration.tables.feedback import LoggedRequestKey, parse_judgement
from calibration.tables.prompts import (
    PromptFileError,
    count_prompt_tokens,
    extract_prompt,
    find_prompt_column,
    read_records,
)
from gateway.tokens import TokenCounter

LOG, PROMPTS = "log", "prompts"
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_LOOKED_AT: Final = 100


@dataclass(slots=True)
class ReplayRequests:
    """All that can be replayed of one file, and what cannot, by reason."""

    name: str
    kind: str
    requests: list[RecordedRequest] = field(default_factory=list)
    lines: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    """Lines that are not what they should be."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Requests that are fine and not for replay."""
    first_bad: dict[str, str] = field(default_factory=dict)

    def count_bad_line(self, reason: str, place: str) -> None:
        """Count a bad line."""
        self.bad[reason] += 1
        self.first_bad.setdefault(reason, place)


def read_requests(
    path: Path,
    counter: Callable[[], TokenCounter],
    *,
    column: str | None = None,
    pinned: bool = False,
    on_row: Callable[[], None] = lambda: None,
) -> ReplayRequests:
    """Read a decision log (JSON lines with a `decision`) or a file of prompts.

    `pinned` takes requests that named their model, too. Raises BadInput for a file that is
    neither, or has nothing to replay.
    """
    opening = table.read_first_character(path)
    if not opening:
        raise BadInput(f"{path}: the file is empty")
    if opening == "{":
        raw = table.read_raw_bytes(path)
        if _is_log(raw):
            return _check_nonempty(
                _read_log(path, table.parse_json_lines(raw), pinned=pinned, on_row=on_row)
            )
    return _check_nonempty(_read_prompts(path, counter(), column, on_row))


def _is_log(raw: bytes) -> bool:
    """Tell whether one of the first lines has a decision."""
    return any(
        line and "decision" in line for _, line in islice(table.parse_json_lines(raw), _LOOKED_AT)
    )


def _check_nonempty(found: ReplayRequests) -> ReplayRequests:
    if not found.requests:
        counts = found.bad + found.left_out
        why = "; ".join(f"{count}: {reason}" for reason, count in counts.most_common(5))
        raise BadInput(f"{found.name}: nothing to replay in {found.lines} lines ({why})")
    return found


def _read_log(
    path: Path,
    lines: Iterable[tuple[int, dict[str, Any] | None]],
    *,
    pinned: bool,
    on_row: Callable[[], None],
) -> ReplayRequests:
    found = ReplayRequests(str(path), LOG)
    judged: dict[LoggedRequestKey, float] = {}
    for number, line in lines:
        found.lines += 1
        on_row()
        if line is None:
            found.count_bad_line("not a JSON object", f"line {number}")
            continue
        told = parse_judgement(line)
        if told is not None and "decision" not in line:
            judged[told[0]] = told[1]
        try:
            found.requests.append(recorded.parse_log_line(line, pinned=pinned))
        except BadLine as error:
            found.count_bad_line(str(error), f"line {number}")
        except LeftOut as error:
            found.left_out[str(error)] += 1
    if judged:
        found.requests = [replace(one, score=judged.get(one.key)) for one in found.requests]
    return found


def _read_prompts(
    path: Path, counter: TokenCounter, column: str | None, on_row: Callable[[], None]
) -> ReplayRequests:
    found = ReplayRequests(str(path), PROMPTS)
    read = list(read_records(path))
    if not read:
        raise BadInput(f"{path}: no prompts in it")
    first = next((one.values for one in read if one.values is not None), {})
    if find_prompt_column(first, column) is None:
        have = ", ".join(list(first)[:12]) or "nothing"
        what = f"no column {column!r}" if column else "neither a decision log nor prompts"
        raise BadInput(f"{path}: {what}; it has: {have} (--prompt-column says which are prompts)")
    limit = next((one for one in _LIMITS if one in first), _LIMITS[0])
    for record in read:
        found.lines += 1
        on_row()
        values = record.values
        if values is None:
            found.count_bad_line("not a JSON object", record.place)
            continue
        try:
            prompt = extract_prompt(record, column)
            asked = _parse_asked_tokens(values.get(limit), limit)
        except (PromptFileError, BadLine) as error:
            found.count_bad_line(str(error), record.place)
            continue
        found.requests.append(RecordedRequest(count_prompt_tokens(counter, prompt), asked))
    return found


def _parse_asked_tokens(value: Any, name: str) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_TOKEN_COUNT:
        raise BadLine(f"{name} is not a whole number of 1 or more")
    return value
