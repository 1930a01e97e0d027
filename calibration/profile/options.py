"""The options of `joulegate profile`: light, for its help is shown without the numeric stack."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """The command line, as it was typed."""

    backend: Annotated[list[str], typer.Option(help="MODEL=URL to measure; may be repeated.")]
    out: Annotated[Path | None, typer.Option(help="CSV file for the rows.")] = None
    grid: Annotated[str | None, typer.Option(help="full or small; default: full.")] = None
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to send instead: CSV, JSONL, JSON.")
    ] = None
    prompt_column: Annotated[str | None, typer.Option(help="Its column with the prompts.")] = None
    api: Annotated[str, typer.Option(help="chat or completions, for --prompts.")] = "chat"
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Most new tokens of an answer, for --prompts.")
    ] = 1024
    concurrency: Annotated[
        str | None, typer.Option(help="Requests at once, besides one: 4,16,64 or none.")
    ] = None
    blocks: Annotated[int, typer.Option(min=1, help="Reshuffled passes over the grid.")] = 3
    min_cell_seconds: Annotated[float, typer.Option(min=0, help="Least time in a cell.")] = 10.0
    max_repeats: Annotated[int, typer.Option(min=1, help="Most requests in a cell.")] = 25
    seed: Annotated[int, typer.Option(help="Of the order and the prompts.")] = 0
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the backends' key.")
    ] = None
    hardware: Annotated[str | None, typer.Option(help="What it runs on, for the rows.")] = None
    meter: Annotated[str, typer.Option(help="auto, nvml, simulator or none.")] = "auto"
    gpus: Annotated[str | None, typer.Option(help="GPUs that NVML adds up: 0,1.")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan and duration.")] = False
    resume: Annotated[bool, typer.Option(help="Go on where the file ends.")] = True
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
