"""How long a plan will take, before it starts and while it runs."""

from collections.abc import Sequence
from math import isfinite
from types import TracebackType
from typing import Any, Final, Self

from rich import progress
from rich.table import Table
from rich.text import Text

from calibration.profile.measurement_job import MeasurementJob
from calibration.profile.workload import (
    CellVisit,
    WorkloadCell,
    estimate_repeats,
    estimate_visit_seconds,
)
from calibration.progress_bar import create_progress_bar
from gateway import profile as profiles
from gateway.console import err, out, print_json
from gateway.scheduling.cost import CostFunction, CostQuantity

# A guess for prompts of unknown lengths: an instruction and an ordinary answer.
_PROMPT: Final = WorkloadCell(100, 200)
# What a simulator's requests and tokens cost in real time, however fast its clock runs.
_SIMULATED_REQUEST_SECONDS: Final = 0.003
_SIMULATED_TOKEN_SECONDS: Final = 50e-6


class PlanEstimate:
    """One model's plan with times from the shipped profile (its own model's, or another's)."""

    def __init__(self, job: MeasurementJob) -> None:
        self.job = job
        known = profiles.load_profile(None).models
        own = known.get(job.target.name)
        self.guessed = own is None
        regression = (own or next(iter(known.values()))).seconds
        self._cost: CostFunction = regression.to_cost_function(CostQuantity.SECONDS)

    def estimate_seconds(self, visit: CellVisit, *, most: bool = False) -> float:
        """Return how long a visit will take in real time; `most` if the stop rule never holds."""
        job, cell = self.job, visit.cell
        rule, alone = job.rule, self._estimate_request_seconds(cell)
        repeats = estimate_repeats(cell, rule, len(job.prompts), alone)
        simulated = estimate_visit_seconds(
            visit, rule, len(job.prompts), self._estimate_request_seconds
        )
        if most and cell.concurrency == 1 and not cell.of_prompts:
            simulated *= rule.max_repeats / rule.blocks / repeats
            repeats = rule.visit_max_repeats
        speed = job.info.simulated_speed
        if speed is None:
            return simulated
        tokens = (cell.tokens_out or _PROMPT.tokens_out) * repeats
        overhead = _SIMULATED_REQUEST_SECONDS * repeats + _SIMULATED_TOKEN_SECONDS * tokens
        return simulated / speed + overhead

    def estimate_requests(self, visit: CellVisit) -> int:
        """Return how many requests a visit will take."""
        cell = visit.cell
        seconds = self._estimate_request_seconds(cell)
        return estimate_repeats(cell, self.job.rule, len(self.job.prompts), seconds)

    def _estimate_request_seconds(self, cell: WorkloadCell) -> float:
        size = _PROMPT if cell.of_prompts else cell
        return self._cost.predict_cost(size.tokens_in, size.tokens_out, cell.concurrency - 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan for machines."""
        job = self.job
        return {
            "model": job.target.name,
            "backend": str(job.target.url),
            "served_name": job.info.served_name,
            "engine": job.info.engine,
            "context_tokens": job.info.context_tokens,
            "run": job.run,
            "cells": list(dict.fromkeys(visit.cell.name for visit in job.visits)),
            "visits": len(job.visits),
            "requests": sum(map(self.estimate_requests, job.visits)),
            "expected_seconds": round(sum(map(self.estimate_seconds, job.visits)), 1),
            "most_seconds": round(sum(self.estimate_seconds(v, most=True) for v in job.visits), 1),
            "times_from": "another model" if self.guessed else "the shipped profile",
        }


def show_plan(outlooks: Sequence[PlanEstimate], *, as_json: bool) -> None:
    """Print what would be measured and how long that would take."""
    plans = [outlook.to_dict() for outlook in outlooks]
    if as_json:
        total = sum(plan["expected_seconds"] for plan in plans)
        print_json({"models": plans, "expected_seconds": round(total, 1)}, line=True)
        return
    table = Table("model", "cells", "visits", "requests", "expected", "at most", "times from")
    for plan in plans:
        table.add_row(
            Text(plan["model"]),
            str(len(plan["cells"])),
            str(plan["visits"]),
            str(plan["requests"]),
            format_duration(plan["expected_seconds"]),
            format_duration(plan["most_seconds"]),
            plan["times_from"],
        )
    out.print(table)
    for plan in plans:
        cells = ", ".join(plan["cells"])
        words = f"{plan['model']} (tokens in x out @ concurrency): {cells}"
        out.print(words, markup=False, soft_wrap=True)
    total = format_duration(sum(plan["expected_seconds"] for plan in plans))
    out.print(f"about {total}, one model after the other; nothing was sent")


def format_duration(seconds: float) -> str:
    """Return seconds as people say them."""
    if not isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


class ProfileProgress:
    """A bar over all models, in expected seconds; where there is no terminal, a line a block."""

    def __init__(self, outlooks: Sequence[PlanEstimate]) -> None:
        left = [(outlook, v) for outlook in outlooks for v in outlook.job.visits]
        self._total = sum(o.estimate_seconds(v) for o, v in left if o.job.has_work_left(v))
        self._outlook = outlooks[0]
        self._visit: CellVisit | None = None
        self._before = 0.0  # expected seconds of the visits that are over
        self._rows = 0
        self._bar = create_progress_bar(
            "{task.description}",
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left:"),
            progress.TimeRemainingColumn(),
            transient=False,
            speed_seconds=600.0,
        )
        self._task = self._bar.add_task("warming up", total=self._total or 1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._bar.update(self._task, completed=self._total or 1.0)
        self._bar.stop()

    def start_model(self, outlook: PlanEstimate) -> None:
        """Go on to the next model."""
        self._close_visit()
        self._outlook = outlook

    def record_request(self, visit: CellVisit, done: int) -> None:
        """Note one more row of a visit, the `done`-th of it."""
        name = self._outlook.job.target.name
        if visit != self._visit:
            last = self._visit
            self._close_visit()
            self._visit = visit
            if self._bar.disable and (last is None or _name_phase(last) != _name_phase(visit)):
                share = self._before / self._total if self._total else 1.0
                err.print(f"{name}: {_name_phase(visit)} ({share:.0%} done)", markup=False)
        self._rows += 1
        expected = max(1, self._outlook.estimate_requests(visit))
        here = self._outlook.estimate_seconds(visit) * min(1.0, done / expected)
        self._bar.update(
            self._task,
            description=f"{name} {visit.cell.name} block {visit.block + 1}, {self._rows} rows",
            completed=min(self._total, self._before + here),
        )

    def _close_visit(self) -> None:
        if self._visit is not None:
            self._before = min(
                self._total, self._before + self._outlook.estimate_seconds(self._visit)
            )
            self._visit = None


def _name_phase(visit: CellVisit) -> str:
    if visit.cell.of_prompts:
        return f"prompts, {visit.cell.concurrency} at once"
    return "under load" if visit.cell.concurrency > 1 else f"block {visit.block + 1}"
