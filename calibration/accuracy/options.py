"""The options of `joulegate accuracy`: light, for its help is shown without the numeric stack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from gateway.profile import SHIPPED


@dataclass(frozen=True, slots=True)
class AccuracyOptions:
    """The command line, as it was typed."""

    file: Annotated[Path, typer.Argument(help="Scores, labels, questions or lm-eval's results.")]
    source: Annotated[
        str | None,
        typer.Option("--from", help="scores, labels, questions or lm-eval; default: by content."),
    ] = None
    profile: Annotated[
        str | None, typer.Option(help="Profile to change: FILE, or shipped with --out.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Profile to write instead of --profile.")] = None
    model: Annotated[
        list[str], typer.Option(help="NAME, or NAME=THEIRS: which models; default: all.")
    ] = field(default_factory=list)
    task: Annotated[
        list[str], typer.Option(help="lm-eval: TASK, or OURS=THEIRS; default: all.")
    ] = field(default_factory=list)
    overall: Annotated[
        str, typer.Option(help="Accuracy over all tasks: pooled, mean of the tasks, or keep.")
    ] = "pooled"
    task_depth: Annotated[
        int | None, typer.Option(min=1, help="Parts of a/task/name to tell tasks apart by.")
    ] = None
    label_columns: Annotated[
        str | None, typer.Option(help="Labels: A,B or MODEL=COLUMN,…: a column for each model.")
    ] = None
    metric: Annotated[str | None, typer.Option(help="lm-eval: acc, acc_norm, exact_match…")] = None
    backend: Annotated[
        list[str], typer.Option(help="Questions: MODEL=URL to ask; may be repeated.")
    ] = field(default_factory=list)
    results: Annotated[
        Path | None, typer.Option(help="Questions: file for the answers, resumed if there.")
    ] = None
    kind: Annotated[
        str | None, typer.Option(help="Questions without a kind: choice, exact or number.")
    ] = None
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1
    score: Annotated[str, typer.Option(help="Of several samples: mean or majority.")] = "mean"
    temperature: Annotated[
        float | None, typer.Option(help="Default: 0, or 0.7 for several samples.")
    ] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="Most new tokens of an answer.")] = 1024
    seed: Annotated[int, typer.Option(help="Of the sampling, and of --limit.")] = 0
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once per backend.")] = 8
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask so many questions, drawn by the seed.")
    ] = None
    api: Annotated[str, typer.Option(help="chat or completions.")] = "chat"
    suffix: Annotated[
        str | None, typer.Option(help="Text after each prompt; auto asks for a final answer.")
    ] = None
    system: Annotated[str | None, typer.Option(help="System message.")] = None
    body: Annotated[str | None, typer.Option(help="JSON object to add to each request.")] = None
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the backends' key.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write no profile.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False

    @property
    def output_path(self) -> Path | None:
        """Where the profile goes; None where nothing is to be written."""
        if self.dry_run:
            return None
        if self.out is not None:
            return self.out
        return Path(self.profile) if self.profile not in (None, SHIPPED) else None


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """`joulegate accuracy train`."""

    files: Annotated[list[Path], typer.Argument(help="CSV or JSON lines, gzip too.")]
    out: Annotated[Path, typer.Option(help="Profile file to write.")]
    label: Annotated[
        list[str],
        typer.Option(help="MODEL=COLUMN of scores 0 to 1; none: columns model and correct."),
    ] = field(default_factory=list)
    prompt: Annotated[str, typer.Option(help="Column with the prompts.")] = "prompt"
    task: Annotated[str | None, typer.Option(help="Column that names a prompt's task.")] = None
    form: Annotated[str, typer.Option(help="task, prompt, mixture; auto: by the columns.")] = "auto"
    calibration: Annotated[
        str, typer.Option(help="platt, isotonic or joint; auto: the best held out.")
    ] = "auto"
    cost: Annotated[
        list[str], typer.Option(help="MODEL=NUMBER for the curves; default: the profile's joules.")
    ] = field(default_factory=list)
    merge: Annotated[
        Path | None, typer.Option(help="Profile to add to; default: the shipped one.")
    ] = None
    from_log: Annotated[
        bool, typer.Option("--from-log", help="FILES are decision logs with feedback.")
    ] = False
    report: Annotated[Path | None, typer.Option(help="Write every figure here, as JSON.")] = None
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
