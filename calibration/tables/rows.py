"""Measured rows from CSV files: read once, every row kept, unusable ones with the reason.

Rules:
- A row is unusable where a token count, the seconds or a joules value is not a number or out
  of range. It is counted under the first reason found, never dropped silently.
- Blank joules were not measured: the row's seconds are still used. The same holds for joules of a
  method that must not enter a fit (coarse, estimated).
- No new tokens make a row unusable, unless `--output-includes-prompt` found that by subtraction:
  then an empty answer was counted by re-tokenising it, and its prompt was paid for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from calibration.arrays import Floats
from calibration.tables.columns import NUMERIC_COLUMNS, REQUIRED_COLUMNS, BadInput, ColumnMapping
from calibration.tables.csv_file import CsvFile
from gateway import tokens

UNTRUSTED_METHODS = frozenset({"coarse", "estimated"})
"""Measurement methods whose joules must not enter a fit."""
_DECIMAL_COMMA = r"[-+]?[0-9.]*,[0-9]+"
_MAX_VALUE = 1e12
_SURPLUS_REASON = "more fields than the header has"
_TEXT_COLUMNS = ("method", "hardware", "engine", "at", "cell")
_TOKENS = ("tokens_in", "tokens_out")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that was read."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class UnusableRows:
    """Why rows were not used: how many, and where the first of them is (1 = first data row)."""

    reason: str
    count: int
    first: str


class MeasuredRows:
    """Everything that was read; `frame` has a line per row that --where and --model keep.

    Its columns are those of `columns.NUMERIC_COLUMNS` (float, NaN where blank), `model`, the
    texts, and `reason` ("" where the row is usable).
    """

    def __init__(self, frame: pd.DataFrame, files: list[SourceFile], *, left_out: int = 0) -> None:
        self.frame = frame
        self.files = files
        self.left_out = left_out
        """Rows excluded by --where or --model."""
        self.notes: list[str] = []

    @property
    def model_names(self) -> list[str]:
        """The models of the rows, in order of appearance."""
        return [str(name) for name in self.frame["model"].unique() if name]

    def select_usable(self, model: str) -> pd.DataFrame:
        """The usable rows of one model."""
        frame = self.frame
        return frame[(frame["model"] == model) & (frame["reason"] == "")]

    def count_unusable(self, model: str | None = None) -> list[UnusableRows]:
        """Count the rows that cannot be used by reason, the most frequent first."""
        bad = self.frame[self.frame["reason"] != ""]
        if model is not None:
            bad = bad[bad["model"] == model]
        firsts = bad.drop_duplicates("reason")
        place = {
            reason: f"{self.files[file].name} row {row}"
            for reason, file, row in zip(
                firsts["reason"], firsts["file"], firsts["row"], strict=True
            )
        }
        return [
            UnusableRows(reason, count, place[reason])
            for reason, count in Counter(bad["reason"]).most_common()
        ]


def read_rows(
    files: Iterable[Path], columns: ColumnMapping, on_bytes: Callable[[int], None] = lambda _: None
) -> MeasuredRows:
    """Read CSV files, plain or gzip. Raises BadInput for files that hold no such rows.

    `on_bytes` is told how many bytes of the files were consumed since it was last called.
    """
    parts: list[pd.DataFrame] = []
    sources: list[SourceFile] = []
    notes: list[str] = []
    seen: Counter[str] = Counter()
    left_out = 0
    for number, path in enumerate(files):
        with CsvFile(path, on_bytes) as file:
            chosen = columns.match_header(file.header, str(path))
            named = _infer_model_name(path, chosen, columns)
            if named is not None and not columns.models:
                notes.append(f"{path.name} has no model column: its rows are of model {named!r}")
            wanted = {*chosen.values(), *columns.where} - _find_unneeded_columns(chosen, columns)
            texts = {chosen[name] for name in (*_TEXT_COLUMNS, "model", "prompt") if name in chosen}
            count = 0
            for chunk in file.read_chunks(wanted, texts | set(columns.where)):
                part = _normalise_chunk(_apply_where(chunk, columns), chosen, columns, named)
                count += len(chunk)
                seen.update(map(str, part["model"].unique()))
                kept = _select_models(part, columns, named)
                kept["file"] = number
                left_out += len(chunk) - len(kept)
                parts.append(kept)
            sources.append(SourceFile(path.name, file.compute_sha256(), count))
    if not sum(source.rows for source in sources):
        raise BadInput(f"{', '.join(source.name for source in sources)}: no rows, only a header")
    frame = pd.concat(parts, ignore_index=True)
    _check_models(frame, columns, seen)
    if frame.empty:
        wheres = " ".join(f"--where {k}={t}" for k, ts in columns.where.items() for t in sorted(ts))
        raise BadInput(f"no row is left after {wheres}")
    rows = MeasuredRows(frame, sources, left_out=left_out)
    rows.notes = notes
    return rows


def _find_unneeded_columns(chosen: dict[str, str], columns: ColumnMapping) -> set[str]:
    """Return the prompt's column where it is not used: prompts are long."""
    if "prompt" in chosen and ("prompt" not in columns.names or "tiktoken_in" in chosen):
        return {chosen["prompt"]} - set(columns.where)
    return set()


def _infer_model_name(path: Path, chosen: dict[str, str], columns: ColumnMapping) -> str | None:
    """Return the model of a file without a model column; None: it has that column."""
    if "model" in chosen:
        return None
    stem = path.name.split(".csv")[0].removesuffix(".gz").removeprefix("metrics_")
    if not columns.models:
        return stem
    if (
        len(columns.models) == 1
        and next(iter(columns.models.items()))[0] in columns.models.values()
    ):
        return next(iter(columns.models))
    for text in columns.models.values():
        if text in {path.name, stem, str(path)}:
            return text
    keys = ", ".join(columns.models)
    raise BadInput(
        f"{path}: which of {keys} is it? It has no model column: --model NAME={path.name}"
    )


def _select_models(part: pd.DataFrame, columns: ColumnMapping, named: str | None) -> pd.DataFrame:
    """Keep the models asked for, under the names asked for."""
    if not columns.models:
        return part
    keys = {text: key for key, text in columns.models.items()}
    if named is not None:
        part["model"] = keys.get(named, named)
        return part
    part = part[part["model"].isin([*keys, ""])].copy()
    part["model"] = part["model"].replace(keys)
    return part


def _check_models(frame: pd.DataFrame, columns: ColumnMapping, seen: Counter[str]) -> None:
    have = set(frame["model"].unique())
    for key, text in columns.models.items():
        if key not in have:
            known = ", ".join(sorted(name for name in seen if name)) or "none"
            raise BadInput(
                f"--model {key}: no row of model {text!r}; the rows have: {known}; "
                f"to fit one of them as {key}: --model {key}=THAT"
            )


def _apply_where(chunk: pd.DataFrame, columns: ColumnMapping) -> pd.DataFrame:
    """Keep the rows that --where asks for."""
    for name, texts in columns.where.items():
        chunk = chunk[chunk[name].fillna("").str.strip().isin(texts)]
    return chunk


def _normalise_chunk(
    chunk: pd.DataFrame, chosen: dict[str, str], columns: ColumnMapping, named: str | None
) -> pd.DataFrame:
    """Convert a chunk of a file to our columns, and mark each unusable row with the reason."""
    size = len(chunk)
    reason = np.full(size, "", dtype=object)
    reason[(chunk["_extra"].notna()).to_numpy(dtype=bool)] = _SURPLUS_REASON
    data: dict[str, object] = {"row": chunk["_row"].to_numpy()}
    for ours in NUMERIC_COLUMNS:
        if ours not in chosen:
            data[ours] = np.full(size, np.nan)
            continue
        values, problem = _parse_numbers(chunk[chosen[ours]], ours)
        _add_reasons(reason, problem)
        data[ours] = values * columns.scales.get(ours, 1.0)
    if columns.output_includes_prompt:
        new = np.asarray(data["tokens_out"]) - np.asarray(data["tokens_in"])
        data["tokens_out"] = new
        _add_reasons(
            reason, _make_reasons(new < 0, "fewer tokens_out than tokens_in: they hold no prompt")
        )
    else:
        out = np.asarray(data["tokens_out"])
        _add_reasons(reason, _make_reasons(out == 0, "tokens_out is zero"))
    for ours in _TEXT_COLUMNS:
        data[ours] = (
            _clean_texts(chunk[chosen[ours]]) if ours in chosen else np.full(size, "", object)
        )
    if "model" in chosen:
        data["model"] = _clean_texts(chunk[chosen["model"]])
        _add_reasons(reason, _make_reasons(np.asarray(data["model"]) == "", "model is missing"))
    else:
        data["model"] = np.full(size, named, object)
    if "prompt" in columns.names and "tiktoken_in" not in chosen:
        counter = tokens.load_token_counter()
        data["tiktoken_in"] = np.fromiter(
            (counter.count_tokens(text) for text in _clean_texts(chunk[chosen["prompt"]])),
            float,
            size,
        )
    data["reason"] = reason
    return pd.DataFrame(data)


def _clean_texts(column: pd.Series) -> NDArray[np.object_]:
    return column.fillna("").str.strip().to_numpy(dtype=object)


def _make_reasons(condition: NDArray[np.bool_], text: str) -> NDArray[np.object_]:
    return np.where(condition, text, "").astype(object)


def _add_reasons(reason: NDArray[np.object_], problem: NDArray[np.object_]) -> None:
    """Set the reason of rows that have none yet."""
    fresh = (reason == "") & (problem != "")
    reason[fresh] = problem[fresh]


def _parse_numbers(column: pd.Series, ours: str) -> tuple[Floats, NDArray[np.object_]]:
    """Return a column's values, NaN where blank or unusable, and the reason for each."""
    problem = np.full(len(column), "", dtype=object)
    blank = column.isna().to_numpy(dtype=bool)
    comma = np.zeros(len(column), dtype=bool)
    if pd.api.types.is_numeric_dtype(column):
        values: Floats = column.to_numpy(dtype=float)
    else:
        text = column.astype(str).str.strip()
        blank = blank | (text == "").to_numpy(dtype=bool)
        values = pd.to_numeric(text.where(~blank), errors="coerce").to_numpy(dtype=float)
        comma = text.str.fullmatch(_DECIMAL_COMMA).to_numpy(dtype=bool)
    with np.errstate(invalid="ignore"):
        checks: Iterator[tuple[NDArray[np.bool_], str]] = iter(
            (
                (blank & (ours in REQUIRED_COLUMNS), f"{ours} is missing"),
                (comma & np.isnan(values), f"{ours} has a decimal comma, where a point is read"),
                (~blank & np.isnan(values), f"{ours} is not a number"),
                (values < 0, f"{ours} is negative"),
                (values > _MAX_VALUE, f"{ours} is too large"),
                ((values == 0) & (ours in {"tokens_in", "seconds"}), f"{ours} is zero"),
            )
        )
        for found, text_ in checks:
            _add_reasons(problem, _make_reasons(found, text_))
    return values, problem
