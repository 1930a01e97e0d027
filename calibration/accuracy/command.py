"""`joulegate accuracy`: scores from a file or a graded run, and with a profile to write, into it.

Everything is read, asked and checked before a byte of the profile is written; it is replaced whole.
"""

import asyncio
import hashlib
import shlex
import signal
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Self

from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table as Grid
from rich.text import Text

from backends.errors import BackendError
from calibration.accuracy import checks, labels, lm_eval, questions, scores
from calibration.accuracy import graded_run as exam
from calibration.accuracy import merge as accuracy
from calibration.accuracy.merge import AccuracyChange
from calibration.accuracy.options import AccuracyOptions
from calibration.accuracy.questions import GradedQuestion
from calibration.accuracy.results_file import ResultsFile
from calibration.accuracy.scores import LoadedScores
from calibration.endpoint.retry import CollectError
from calibration.endpoint.server import TargetError
from calibration.progress_bar import create_progress_bar
from calibration.tables import records as table
from calibration.tables.columns import BadInput, parse_name_pairs
from gateway import profile
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

_LINE_EVERY: Final = 200


class _UnfinishedRunError(Exception):
    """The run did not get all its answers; what it got is in the file."""


def run(options: AccuracyOptions) -> int:
    """Do it; return the exit code. Complaints go to stderr, the profile is then as it was."""
    try:
        report = _update_accuracy(options)
    except (BadInput, TargetError, profile.ProfileError) as error:
        return report_usage_error(error)
    except OSError as error:
        return report_usage_error(format_os_error(error))
    except (CollectError, BackendError, _UnfinishedRunError) as error:
        report_failure(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        report_failure("stopped")
    else:
        if options.as_json:
            print_json(report)
        return OK
    path = checks.choose_results_path(options)
    if path.exists():
        err.print(f"the answers so far are in {path}; to go on from there:", markup=False)
        err.print(f"  joulegate {shlex.join(sys.argv[1:])}", markup=False)
    return FAILED


def _update_accuracy(options: AccuracyOptions) -> dict[str, Any]:
    old = checks.load_existing_profile(options)
    found, exam_report = _load_scores(options, old)
    names = parse_name_pairs(options.model, "--model")
    wanted = scores.select_scores(found, {} if _has_named_model(found) else names, old.models)
    wanted = scores.add_overall_scores(wanted, options.overall, found.notes)
    models, changes = accuracy.merge_scores(old.models, wanted, found)
    where, version = options.output_path, None
    if not options.as_json:
        _print_changes(changes, found)
    if where is not None:
        profile.save_profile(models, where, old.lengths, old.accuracy_by_prompt)
        version = profile.load_profile(where).version
    if not options.as_json:
        _print_written_path(options, where, version)
    return {
        "source": found.kind,
        "files": found.sources,
        "changes": [change.as_json() for change in changes],
        "notes": found.notes,
        **exam_report,
        "out": str(where) if where else None,
        "profile_version": version,
    }


def _has_named_model(found: LoadedScores) -> bool:
    """Whether the models were named by options already (lm-eval's files name none of ours)."""
    return found.kind in {"lm-eval", "questions"}


def _load_scores(
    options: AccuracyOptions, old: profile.CostProfile
) -> tuple[LoadedScores, dict[str, Any]]:
    """Return the scores of the source, and what a run has to say beside."""
    kind = checks.detect_source(options)
    depth = options.task_depth
    if kind == "lm-eval":
        return _read_lm_eval(options), {}
    with err.status("reading") if err.is_terminal else nullcontext():
        read = table.read_table(options.file)
        if kind == "scores":
            return labels.read_scores(read), {}
        if kind == "labels":
            columns = checks.read_label_columns(options)
            if columns is None:
                return labels.read_labels(read, depth), {}
            return labels.read_wide_labels(read, columns, depth), {}
    targets = checks.parse_targets(options)
    for target, _ in targets:
        old.get_model(target.name)
    asked = questions.read_questions(read, options.kind, depth)
    return _grade_backends(
        options, questions.sample_questions(asked, options.limit, options.seed), read
    )


def _read_lm_eval(options: AccuracyOptions) -> LoadedScores:
    if len(options.model) != 1 or "=" in options.model[0]:
        raise BadInput("--from lm-eval: whose results are they? One --model NAME, of the profile")
    tasks = {theirs: ours for ours, theirs in parse_name_pairs(options.task, "--task").items()}
    sha256 = hashlib.sha256(table.read_raw_bytes(options.file)).hexdigest()
    return lm_eval.read_results(
        options.file, sha256, model=options.model[0], metric=options.metric, tasks=tasks
    )


def _grade_backends(
    options: AccuracyOptions, asked: list[GradedQuestion], read: table.RecordTable
) -> tuple[LoadedScores, dict[str, Any]]:
    settings = checks.build_settings(options)
    targets = checks.parse_targets(options)
    with ResultsFile.open(checks.choose_results_path(options)) as results:
        if results.truncated_bytes:
            err.print("truncated an incomplete last line (interrupted run)", markup=False)
        total = len(targets) * len(asked) * settings.samples
        with _AnswerProgressBar(total) as bar:
            one = exam.GradedRun(targets, asked, settings, results, bar.count_answer)
            bar.start_after(one.answers_before)
            asyncio.run(_run_until_signal(one))
        path = results.path
    names = [target.name for target, _ in targets]
    marks, tallies = exam.grade_answers(names, asked, one.answers, settings)
    missing = sum(tally.missing for tally in tallies.values())
    if missing:
        raise _UnfinishedRunError(
            f"{missing} questions are without an answer; the profile is as it was"
        )
    found = LoadedScores(
        marks.compute_scores(),
        "questions",
        [{"name": read.name.rpartition("/")[2], "sha256": read.sha256}],
    )
    silent = [name for name in names if name not in found.model_names]
    if silent:
        words = "; ".join(_list_refusals(one, silent[0])) or "no question was answered"
        raise _UnfinishedRunError(f"{silent[0]} answered no question: {words}")
    what = "the majority's answer" if settings.score == exam.MAJORITY else "the samples' mean"
    if settings.samples > 1:
        found.notes.append(f"each question counts once, by {what} of {settings.samples} samples")
    for name, tally in tallies.items():
        for count, words in (
            (tally.no_answer_found, "answers hold no answer in the form asked for; they are wrong"),
            (tally.cut, f"answers ran into --max-tokens {settings.max_tokens}"),
            (tally.refused, "questions were refused by the server and left out"),
        ):
            if count:
                found.notes.append(f"{name}: {count} {words}")
    return found, {
        "run": settings.run_id,
        "results": str(path),
        "answers": len(one.answers) - one.answers_before,
        "answers_before": one.answers_before,
        "score": settings.score,
        "models": {name: asdict(tally) for name, tally in tallies.items()},
    }


def _list_refusals(one: exam.GradedRun, name: str) -> list[str]:
    return one.failure_stats[name].refusals


async def _run_until_signal(one: exam.GradedRun) -> None:
    task = asyncio.current_task()
    if task is not None and sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await one.run()


class _AnswerProgressBar:
    """Progress: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._bar = create_progress_bar(
            "asking {task.description}", MofNCompleteColumn(), TimeRemainingColumn()
        )
        self._task = self._bar.add_task("", total=total)

    def start_after(self, before: int) -> None:
        """Resume after the answers of earlier runs."""
        self._done = before
        self._bar.update(self._task, completed=before)
        if before:
            err.print(f"resuming after {before} of {self._total} answers", markup=False)

    def count_answer(self, model: str) -> None:
        """Count one answer."""
        self._done += 1
        self._bar.update(self._task, completed=self._done, description=model)
        if not err.is_terminal and self._done % _LINE_EVERY == 0:
            err.print(f"{self._done} of {self._total} answers", markup=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_changes(changes: list[AccuracyChange], found: LoadedScores) -> None:
    grid = Grid(box=None, pad_edge=False)
    for name in ("model", "task"):
        grid.add_column(name, overflow="fold")
    for name in ("old", "new", "n", "95% interval"):
        grid.add_column(name, justify="right", no_wrap=True)
    for change in changes:
        score = change.score
        ends = f"{score.interval.low:.4f} to {score.interval.high:.4f}" if score.interval else "-"
        grid.add_row(
            *(Text(score.model), Text(score.task or "overall")),
            "-" if change.old_share is None else f"{change.old_share:.4f}",
            *(f"{change.new_share:.4f}", str(score.n or "-"), ends),
        )
    out.print(grid)
    for note in found.notes:
        out.print(f"! {note}", markup=False, soft_wrap=True)


def _print_written_path(options: AccuracyOptions, where: Path | None, version: str | None) -> None:
    if where is not None:
        out.print(f"\nwrote {where} (version {version})", markup=False, soft_wrap=True)
    elif options.dry_run:
        out.print("\nnothing written (--dry-run)")
    else:
        out.print("\nnothing written: name --profile FILE to change it, or --out FILE")
