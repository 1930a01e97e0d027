"""What to measure, in which order, and when it is enough. PURE: no clock, no socket, no file.

A **cell** is one combination of tokens in, tokens out and concurrency (or a file of prompts at one
concurrency); a **visit** is one turn at a cell. Cells at concurrency 1 are visited once a block,
each block in another order, so that a drift (a warming GPU, a neighbour) does not pass for an
effect of length. All of it follows from the seed and from the rows there are: a run that was
killed goes on exactly where it stopped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil, isfinite, sqrt
from random import Random
from typing import Final

from calibration.stats.intervals import Z_95

MIN_REPEATS: Final = 5
PRECISION: Final = 0.02
_BUSY_ROUNDS: Final = 2
# Tokenisers differ; a prompt may come out a little longer than wanted and must still fit.
_CONTEXT_MARGIN: Final = 64


class PlanError(ValueError):
    """A plan that cannot be made."""


@dataclass(frozen=True, slots=True)
class WorkloadCell:
    """Tokens in and out are 0 for a file of prompts, whose lengths are their own."""

    tokens_in: int
    tokens_out: int
    concurrency: int = 1

    @property
    def of_prompts(self) -> bool:
        """Whether the requests come from a file."""
        return not self.tokens_in

    @property
    def name(self) -> str:
        """As in the rows: 512x64@16."""
        what = "prompts" if self.of_prompts else f"{self.tokens_in}x{self.tokens_out}"
        return f"{what}@{self.concurrency}"


@dataclass(frozen=True, slots=True)
class WorkloadGrid:
    """Lengths at concurrency 1, and the fewer that are measured under load."""

    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]
    busy_in: tuple[int, ...]
    busy_out: tuple[int, ...]


GRIDS: Final = {
    "full": WorkloadGrid(
        (32, 128, 512, 1024, 2048, 4096),
        (16, 64, 128, 256, 512, 1024),
        (32,),
        (64, 256),
    ),
    "small": WorkloadGrid((32, 256, 1024), (16, 64, 256), (32,), (64, 256)),
}
"""Busy cells have short prompts. Long ones saturate the prefill at 16 or 64 at once: requests then
wait in line for all the prompts before them, which grows with tokens in x running. No cost form has
that term, and such rows would bend b0, b1 and b2 instead; what b4 is about is decoding together."""


def build_grid_cells(
    grid: WorkloadGrid, context_tokens: int, levels: Iterable[int]
) -> list[WorkloadCell]:
    """Return the cells that fit the context, prompts shortened where the answer needs the room.

    Raises PlanError where none fits.
    """
    room = context_tokens - max(1, context_tokens // _CONTEXT_MARGIN)

    def yield_fitting_cells(
        ins: Iterable[int], outs: Iterable[int], concurrency: int
    ) -> Iterator[WorkloadCell]:
        for tokens_out in outs:
            for tokens_in in ins:
                capped = min(tokens_in, room - tokens_out)
                if capped >= min(ins):
                    yield WorkloadCell(capped, tokens_out, concurrency)

    found = list(yield_fitting_cells(grid.tokens_in, grid.tokens_out, 1))
    for level in sorted(set(levels) - {1}):
        found.extend(yield_fitting_cells(grid.busy_in, grid.busy_out, level))
    if not found:
        raise PlanError(f"no cell of the grid fits a context of {context_tokens} tokens")
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class StopRule:
    """How much of a cell is enough; seconds are the rows' own (a simulator's are simulated)."""

    blocks: int = 3
    min_cell_seconds: float = 10.0
    max_repeats: int = 25

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.max_repeats < 1:
            raise PlanError("blocks and repeats must be at least 1")
        if not (isfinite(self.min_cell_seconds) and self.min_cell_seconds >= 0.0):
            raise PlanError("the least seconds of a cell must be a finite number, 0 or more")

    @property
    def visit_seconds(self) -> float:
        """A block's part of the least time."""
        return self.min_cell_seconds / self.blocks

    @property
    def visit_min_repeats(self) -> int:
        """A block's part of the least repeats."""
        return min(self.visit_max_repeats, ceil(MIN_REPEATS / self.blocks))

    @property
    def visit_max_repeats(self) -> int:
        """A block's part of the most repeats; the last block may take what others left."""
        return ceil(self.max_repeats / self.blocks)

    def count_busy_repeats(self, concurrency: int) -> int:
        """Requests of a cell under load: a fixed number, at least two rounds of all slots."""
        least = min(MIN_REPEATS, self.max_repeats)
        return max(least, min(_BUSY_ROUNDS, self.max_repeats) * concurrency)


@dataclass(slots=True)
class CellTally:
    """What there is of one cell so far."""

    seconds: list[float] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    repeats: dict[int, set[int]] = field(default_factory=dict)
    """Block -> the repeats that were measured."""
    block_seconds: dict[int, float] = field(default_factory=dict)

    def add_row(self, block: int, repeat: int, seconds: float, joules: float | None) -> None:
        """Count one row. Raises PlanError if it is there already."""
        done = self.repeats.setdefault(block, set())
        if repeat in done:
            raise PlanError(f"block {block}, repeat {repeat} is there twice")
        done.add(repeat)
        self.seconds.append(seconds)
        if joules is not None:
            self.joules.append(joules)
        self.block_seconds[block] = self.block_seconds.get(block, 0.0) + seconds

    def next_repeat(self, block: int) -> int:
        """Return the number of the block's next repeat."""
        return max(self.repeats.get(block, ()), default=-1) + 1

    @property
    def is_precise(self) -> bool:
        """Whether the stop rule holds: enough repeats, narrow intervals of both means."""
        return len(self.seconds) >= MIN_REPEATS and all(
            compute_half_interval(values) <= PRECISION * sum(values) / len(values)
            for values in (self.seconds, self.joules)
            if values
        )

    def wants_more(self, block: int, rule: StopRule) -> bool:
        """Whether this visit of a cell at concurrency 1 goes on."""
        here = len(self.repeats.get(block, ()))
        if len(self.seconds) >= rule.max_repeats:
            return False
        if not here:
            return True
        last = block == rule.blocks - 1
        if here >= rule.visit_max_repeats and not last:
            return False
        if self.block_seconds[block] < rule.visit_seconds:
            return True
        if self.is_precise:
            return False
        return last or here < rule.visit_min_repeats

    def list_missing_repeats(self, count: int) -> list[int]:
        """Repeats out of `count` that a cell of one visit still needs."""
        return sorted(set(range(count)) - self.repeats.get(0, set()))


def compute_half_interval(values: Sequence[float]) -> float:
    """Return half the 95% interval of the mean (Student's t), in the unit of the values."""
    n = len(values)
    if n < 2:  # noqa: PLR2004 - one value has no spread
        return float("inf")
    mean = sum(values) / n
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return compute_t_quantile(n - 1) * deviation / sqrt(n)


def compute_t_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t (Abramowitz and Stegun, 26.7.5).

    Within 0.3% from 4 degrees of freedom on, which is where the stop rule begins.
    """
    z, v = Z_95, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


@dataclass(frozen=True, slots=True)
class CellVisit:
    """One turn at a cell."""

    cell: WorkloadCell
    block: int = 0


def plan_visits(
    cells: Sequence[WorkloadCell], rule: StopRule, seed: int, model: str
) -> list[CellVisit]:
    """Return the order: blocks at concurrency 1, each shuffled anew; then load; then prompts."""
    planned: list[CellVisit] = []
    alone = [cell for cell in cells if cell.concurrency == 1 and not cell.of_prompts]
    for block in range(rule.blocks):
        planned += [
            CellVisit(cell, block) for cell in _shuffle_cells(alone, f"{seed}:{model}:{block}")
        ]
    busy = [cell for cell in cells if cell.concurrency > 1 and not cell.of_prompts]
    planned += [CellVisit(cell) for cell in _shuffle_cells(busy, f"{seed}:{model}:busy")]
    return planned + [CellVisit(cell) for cell in cells if cell.of_prompts]


def _shuffle_cells(cells: Sequence[WorkloadCell], key: str) -> list[WorkloadCell]:
    return Random(key).sample(cells, len(cells))  # noqa: S311 - to be repeatable


def compute_run_name(
    cells: Iterable[WorkloadCell],
    blocks: int,
    seed: int,
    prompts: Sequence[str],
    *,
    api: str,
    max_tokens: int,
) -> str:
    """Return a name that the same plan always has: resuming finds its rows by it.

    `api` and `max_tokens` are how prompts are sent; a grid's requests do not depend on them.
    """
    digest = sha256(f"{blocks}:{seed}:{[cell.name for cell in cells]}".encode())
    if prompts:
        digest.update(f"{api}:{max_tokens}".encode())
    for prompt in prompts:
        digest.update(sha256(prompt.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()[:12]


def estimate_repeats(cell: WorkloadCell, rule: StopRule, prompts: int, seconds: float) -> int:
    """Return how many requests a visit will likely take if one alone lasts `seconds`."""
    if cell.of_prompts:
        return prompts
    if cell.concurrency > 1:
        return rule.count_busy_repeats(cell.concurrency)
    filling = ceil(rule.visit_seconds / max(seconds, 1e-6))
    return min(rule.visit_max_repeats, max(rule.visit_min_repeats, filling))


def estimate_visit_seconds(
    visit: CellVisit, rule: StopRule, prompts: int, seconds_of: Callable[[WorkloadCell], float]
) -> float:
    """Return how long a visit will likely take if `seconds_of(cell)` holds for a request there."""
    cell = visit.cell
    seconds = seconds_of(cell)
    repeats = estimate_repeats(cell, rule, prompts, seconds)
    # Under load the slots are first filled, one after another, and run on until the last is done.
    rounds = repeats / cell.concurrency + (cell.concurrency > 1)
    return rounds * seconds
