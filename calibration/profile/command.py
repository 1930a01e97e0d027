"""`joulegate profile`: options in, one model after the other, a summary out."""

import asyncio
import errno
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from backends.client import BackendClient
from backends.errors import BackendError
from backends.meter.sources.nvml import NvmlSource
from backends.vllm.recipes import RECIPES
from calibration.endpoint.retry import CollectError, describe_unreachable
from calibration.endpoint.server import ServerInfo, TargetError, TargetServer
from calibration.profile.checks import CheckedProfileOptions, check_options
from calibration.profile.collector import MeasurementCollector
from calibration.profile.energy import (
    CounterMeter,
    MeterError,
    NoMeter,
    ProfilingMeter,
    SimulatorMeter,
)
from calibration.profile.measurement_job import MeasurementJob
from calibration.profile.options import ProfileOptions
from calibration.profile.progress import PlanEstimate, ProfileProgress, show_plan
from calibration.profile.rows_file import MeasurementLog, RowsFileError, read_measurements
from calibration.profile.workload import (
    GRIDS,
    PlanError,
    WorkloadCell,
    build_grid_cells,
    compute_run_name,
    plan_visits,
)
from calibration.tables.prompts import PromptFileError
from gateway import profile as profiles
from gateway import tokens
from gateway.console import (
    FAILED,
    OK,
    err,
    format_os_error,
    out,
    print_json,
    report_failure,
    report_usage_error,
)

_CONTEXT_TOKENS: Final = 4096  # where a server does not tell
_CONNECT_SECONDS: Final = 5.0
_UNUSABLE: Final = (
    *(PlanError, PromptFileError, TargetError, RowsFileError, MeterError),
    profiles.ProfileError,
)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def run(options: ProfileOptions) -> int:
    """Measure, or show the plan; returns the exit code."""
    try:
        wanted = check_options(options)
        return asyncio.run(_run_profile(wanted))
    except _UNUSABLE as error:
        return report_usage_error(error)
    except OSError as error:
        report = report_failure if error.errno in _NO_ROOM else report_usage_error
        return report(format_os_error(error))
    except (CollectError, BackendError) as error:
        report_failure(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        report_failure("stopped")
    if options.out is not None and options.out.exists():
        argv = [arg for arg in sys.argv[1:] if arg != "--no-resume"]
        err.print(f"what was measured is in {options.out}; to go on from there:", markup=False)
        err.print(f"  joulegate {shlex.join(argv)}", markup=False)
    return FAILED


async def _run_profile(wanted: CheckedProfileOptions) -> int:
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with BackendClient(connect_seconds=_CONNECT_SECONDS) as client:
        with ExitStack() as stack:
            jobs = [await _plan_job(wanted, target, client, stack) for target in wanted.targets]
            outlooks = [PlanEstimate(job) for job in jobs]
            if wanted.options.dry_run:
                show_plan(outlooks, as_json=wanted.options.as_json)
                return OK
            return await _run_jobs(wanted, jobs, outlooks, stack)


async def _plan_job(
    wanted: CheckedProfileOptions, target: TargetServer, client: BackendClient, stack: ExitStack
) -> MeasurementJob:
    """Plan one model. Raises CollectError, TargetError, PlanError or MeterError."""
    options = wanted.options
    try:
        info = await target.fetch_server_info(client)
    except BackendError as error:
        if not options.dry_run:
            raise CollectError(describe_unreachable(target, error)) from error
        err.print(f"{target.name}: no answer from {target.url}; guessing", markup=False)
        recipe = RECIPES.get(target.name)
        context = recipe.context_tokens if recipe else None
        info = ServerInfo(target.name, context, "", None, tokenizes=False)
    meter = NoMeter() if options.dry_run else _choose_meter(wanted, target, info)
    stack.callback(meter.close)
    cells: list[WorkloadCell] = []
    grid = options.grid or (None if wanted.prompts else "full")
    if grid is not None:
        context = info.context_tokens or _CONTEXT_TOKENS
        cells += build_grid_cells(GRIDS[grid], context, wanted.levels)
    if wanted.prompts:
        cells += [WorkloadCell(0, 0, level) for level in wanted.prompt_levels]
    return MeasurementJob(
        target=target,
        info=info,
        meter=meter,
        run=compute_run_name(
            cells,
            wanted.rule.blocks,
            options.seed,
            wanted.prompts,
            api=options.api,
            max_tokens=options.max_tokens,
        ),
        rule=wanted.rule,
        visits=plan_visits(cells, wanted.rule, options.seed, target.name),
        prompts=wanted.prompts,
        api=options.api,
        max_tokens=options.max_tokens,
        seed=options.seed,
        hardware=options.hardware if options.hardware is not None else meter.hardware,
    )


def _choose_meter(
    wanted: CheckedProfileOptions, target: TargetServer, info: ServerInfo
) -> ProfilingMeter:
    """Choose where joules come from. Raises MeterError for one that was named and is not there."""
    kind = wanted.options.meter
    gpus = [str(number) for number in wanted.gpus]
    if kind == "none":
        return NoMeter()
    if info.simulated_speed is not None and kind != "nvml":
        return SimulatorMeter()
    if kind == "simulator":
        raise MeterError(f"--meter simulator: {target.name} at {target.url} is no simulator")
    if kind == "nvml":
        return CounterMeter(NvmlSource(gpus))
    if not target.is_local:
        err.print(
            f"{target.name}: runs elsewhere, so joules will be missing (run this beside it)",
            markup=False,
        )
        return NoMeter()
    try:
        return CounterMeter(NvmlSource(gpus))
    except MeterError as error:
        err.print(f"{target.name}: joules will be missing: {error}", markup=False)
        return NoMeter()


async def _run_jobs(
    wanted: CheckedProfileOptions,
    jobs: Sequence[MeasurementJob],
    outlooks: Sequence[PlanEstimate],
    stack: ExitStack,
) -> int:
    options, began = wanted.options, time.monotonic()
    if options.out is None:  # pragma: no cover - checked before
        raise PlanError("--out is missing")
    log = stack.enter_context(MeasurementLog.open(options.out))
    earlier = foreign = 0
    for line, row in enumerate(read_measurements(options.out), 2):
        try:
            taken = any([job.count_earlier_row(row) for job in jobs])  # noqa: C419 - at most one does
        except PlanError as error:
            raise PlanError(
                f"{options.out}:{line}: cell {row.cell}: {error}; delete one of the two rows"
            ) from None
        earlier, foreign = earlier + taken, foreign + (not taken)
    if log.cut_bytes:
        err.print("truncated an incomplete last row (interrupted run)", markup=False)
    if earlier:
        err.print(f"resuming after {earlier} rows", markup=False)
    if foreign:
        err.print(f"{foreign} rows of other plans stay as they are", markup=False)
    counter = tokens.load_token_counter()
    collectors = []
    with ProfileProgress(outlooks) as progress:
        for job, outlook in zip(jobs, outlooks, strict=True):
            progress.start_model(outlook)
            collector = MeasurementCollector(job, log, counter, progress.record_request)
            collectors.append(collector)
            await collector.run()
    models = {c.job.target.name: _build_summary(c) for c in collectors}
    complete = all(model["complete"] for model in models.values())
    summary = {
        "out": str(options.out),
        "rows": log.appended,
        "rows_before": earlier,
        "wall_seconds": round(time.monotonic() - began, 3),
        "complete": complete,
        "models": models,
    }
    _print_summary(summary, as_json=options.as_json)
    return OK if complete else FAILED


def _build_summary(collector: MeasurementCollector) -> dict[str, Any]:
    job, trouble = collector.job, collector.failures
    tallies = job.tallies.values()
    left = {visit.cell.name for visit in job.visits if job.has_work_left(visit)}
    return {
        "run": job.run,
        "rows": sum(len(tally.seconds) for tally in tallies),
        "rows_with_joules": sum(len(tally.joules) for tally in tallies),
        "cells": len({visit.cell for visit in job.visits}),
        # A prompt that the server refuses will be refused again.
        "complete": all(name.startswith("prompts") for name in left),
        "unfinished": sorted(left),
        "failed_tries": dict(trouble.retries),
        "given_up": trouble.given_up,
        "refusals": trouble.refusals,
    }


def _print_summary(summary: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(summary, line=True)
        return
    for name, model in summary["models"].items():
        words = f"{name}: {model['rows']} rows over {model['cells']} cells"
        words += f", {model['rows_with_joules']} with joules"
        if model["given_up"]:
            words += f"; {model['given_up']} requests given up: {model['failed_tries']}"
        if not model["complete"]:
            words += f"; unfinished: {', '.join(model['unfinished'])}"
        out.print(words, markup=False, soft_wrap=True)
        for refusal in model["refusals"]:
            out.print(f"  refused {refusal}", markup=False, soft_wrap=True)
    seconds = summary["wall_seconds"]
    out.print(
        f"{summary['rows']} new rows in {summary['out']} after {seconds:.0f} s",
        markup=False,
        soft_wrap=True,
    )
