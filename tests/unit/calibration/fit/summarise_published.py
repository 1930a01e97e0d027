"""Sums and counts of the reference project's rows, and its published figures, as test data.

    python tests/unit/calibration/fit/summarise_published.py SEED_PROFILES > …/published_sums.json

SEED_PROFILES holds metrics_MODEL.csv.gz, normalization_stats.json and model_regression_summary.csv.
Sums are exact: values are read as the decimals that they are written as. No row is carried over.
`all` counts every row; `new_tokens` counts tokens out without the prompt's, and no row where they
are fewer than none.
"""

import csv
import gzip
import json
import sys
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, localcontext
from itertools import combinations_with_replacement
from pathlib import Path

COLUMNS = {
    "i": "input_tokens",
    "o": "output_tokens",
    "seconds": "runtime_seconds",
    "joules": "energy_joules",
}


def read_rows(path: Path) -> list[dict[str, Decimal]]:
    with gzip.open(path, "rt", newline="") as file:
        return [
            {ours: Decimal(row[theirs]) for ours, theirs in COLUMNS.items()}
            for row in csv.DictReader(file)
        ]


def summarise(rows: Iterable[dict[str, Decimal]]) -> dict[str, str | int]:
    rows = list(rows)
    found: dict[str, str | int] = {"n": len(rows)}
    for name in COLUMNS:
        found[name] = str(sum(row[name] for row in rows))
    for a, b in combinations_with_replacement(COLUMNS, 2):
        found[f"{a}*{b}"] = str(sum(row[a] * row[b] for row in rows))
    for name in ("seconds", "joules"):
        found[f"min {name}"] = str(min(row[name] for row in rows))
        found[f"max {name}"] = str(max(row[name] for row in rows))
    return found


def main(folder: Path) -> None:
    models = {}
    for path in sorted(folder.glob("metrics_*.csv.gz")):
        rows = read_rows(path)
        fresh = [{**row, "o": row["o"] - row["i"]} for row in rows if row["o"] >= row["i"]]
        name = path.name.removeprefix("metrics_").removesuffix(".csv.gz")
        models[name] = {"all": summarise(rows), "new_tokens": summarise(fresh)}
    with (folder / "model_regression_summary.csv").open(newline="") as file:
        regressions = {row.pop("model"): row for row in csv.DictReader(file)}
    stats = json.loads((folder / "normalization_stats.json").read_text(encoding="utf-8"))
    json.dump(
        {"models": models, "normalization_stats": stats, "regressions": regressions},
        sys.stdout,
        indent=1,
    )
    print()


if __name__ == "__main__":
    with localcontext(Context(prec=200, traps=[Inexact])):
        main(Path(sys.argv[1]))
