"""A whole run of `python -m tests.bench` as text."""

from typing import Any

from tests.bench.report import number, table

BUSY = 32
"""Connections of the unary load that takes the gateway's core."""


def show(result: dict[str, Any]) -> str:
    """Return the run as text."""
    parts = ["\n".join(f"{key:12} {value}" for key, value in result["machine"].items())]
    beside = [*_unary_rows(result), *_stream_rows(result)]
    if beside:
        head = ("", "direct", "through", "difference", "ratio", "spread")
        parts.append(table(head, beside))
    rows: list[tuple[str, ...]] = []
    if "start_seconds" in result:
        start = result["start_seconds"]
        rows.append(("start to ready, s", number(start["median"]), _range(start)))
    for when, value in result.get("memory_mb", {}).items():
        rows.append((f"resident memory, {when}, MB", number(value), ""))
    if "left_in_flight" in result:
        rows.append(("left in flight at the end", str(result["left_in_flight"]), ""))
    if rows:
        parts.append(table(("the process", "", "range"), rows))
    if "decisions" in result:
        columns = (
            "decision, us", "candidates", "bytes", "decode", "p50", "p99", "cpu p50", "cpu p99",
        )  # fmt: skip
        keys = ("decode_us", "p50_us", "p99_us", "cpu_p50_us", "cpu_p99_us")
        timed = [
            (
                row["text"] + (f", {row['trained']} trained" if row["trained"] else ""),
                f"{row['candidates']:,}",
                f"{row['size']:,}",
                *(number(row[key]) for key in keys),
            )
            for row in result["decisions"]
        ]
        parts.append(table(columns, timed))
    return "\n\n".join(parts)


def _unary_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    if "unary" not in result:
        return []
    both = result["unary"]
    return [
        _row("unary, 1 connection: p50, ms", both, "p50_ms"),
        _row("unary, 1 connection: p99, ms", both, "p99_ms"),
        _row(f"unary, {BUSY} connections: requests/s", both, "requests_per_second"),
        _row(f"unary, {BUSY} connections: p99, ms", both, "busy_p99_ms"),
        _row("unary: gateway CPU, us/request", both, "cpu_us_per_request"),
        _row("unary: gateway CPU, of a core", both, "cpu_share"),
        _row("unary: taken of that core by others", both, "others_share"),
        _row("unary: broken", both, "broken"),
    ]


def _stream_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for count, both in result.get("streams", {}).items():
        name = f"{count} streams"
        rows += [
            _row(f"{name}: tokens/s", both, "tokens_per_second"),
            _row(f"{name}: first token p50, ms", both, "ttft_p50_ms"),
            _row(f"{name}: first token p99, ms", both, "ttft_p99_ms"),
            _row(f"{name}: gap p50, ms", both, "gap_p50_ms"),
            _row(f"{name}: gap p99, ms", both, "gap_p99_ms"),
            _row(f"{name}: gateway CPU, of a core", both, "cpu_share"),
            _row(f"{name}: taken of that core by others", both, "others_share"),
            _row(f"{name}: broken", both, "broken"),
        ]
    return rows


def _row(label: str, both: dict[str, Any], figure: str) -> tuple[str, ...]:
    through = both["through"][figure]
    spread = _range(through)
    direct = both["direct"].get(figure)
    if direct is None:
        return label, "", number(through["median"]), "", "", spread
    difference = through["median"] - direct["median"]
    ratio = number(through["median"] / direct["median"]) if direct["median"] else ""
    cells = (number(direct["median"]), number(through["median"]), number(difference), ratio)
    return label, *cells, spread


def _range(figure: dict[str, float]) -> str:
    return f"{number(figure['low'])} to {number(figure['high'])}"
