"""What the options of `joulegate profile` must be to make sense."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from calibration.endpoint.server import TargetServer
from calibration.profile.options import ProfileOptions
from calibration.profile.workload import GRIDS, PlanError, StopRule
from calibration.tables.prompts import read_prompts

METERS: Final = ("auto", "nvml", "simulator", "none")
APIS: Final = ("chat", "completions")
_LEVELS: Final = (4, 16, 64)
_MOST_LEVEL: Final = 4096


@dataclass(slots=True)
class CheckedProfileOptions:
    """Options that were found to make sense."""

    options: ProfileOptions
    targets: list[TargetServer]
    rule: StopRule
    levels: tuple[int, ...]
    """Of the grid."""
    prompt_levels: tuple[int, ...]
    """Of the prompts: one at a time unless told otherwise."""
    prompts: list[str]
    gpus: tuple[int, ...]


def check_options(options: ProfileOptions) -> CheckedProfileOptions:
    """Look at everything that needs no backend.

    Raises PlanError, TargetError, PromptFileError or OSError.
    """
    for option, given, known in (
        ("--grid", options.grid, GRIDS),
        ("--meter", options.meter, METERS),
        ("--api", options.api, APIS),
    ):
        if given is not None and given not in known:
            raise PlanError(f"{option} {given}: not one of {', '.join(known)}")
    if options.out is None and not options.dry_run:
        raise PlanError("--out: name the file for the rows (or ask for --dry-run)")
    if options.out is not None and options.out.exists() and not options.resume:
        raise PlanError(f"{options.out} is there already; without --resume a new file is needed")
    if options.prompt_column is not None and options.prompts is None:
        raise PlanError("--prompt-column goes with --prompts")
    targets = _parse_targets(options.backend, _read_api_key(options.api_key_env))
    levels = _parse_numbers("--concurrency", options.concurrency, least=1)
    return CheckedProfileOptions(
        options=options,
        targets=targets,
        rule=StopRule(options.blocks, options.min_cell_seconds, options.max_repeats),
        levels=_LEVELS if levels is None else levels,
        prompt_levels=levels or (1,),
        prompts=read_prompts(options.prompts, options.prompt_column) if options.prompts else [],
        gpus=_parse_numbers("--gpus", options.gpus, least=0) or (),
    )


def _parse_numbers(option: str, text: str | None, *, least: int) -> tuple[int, ...] | None:
    """Return the numbers of "4,16,64"; none for "none"."""
    if text is None:
        return None
    if text.strip() in ("", "none"):
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(p.isascii() and p.isdigit() and least <= int(p) <= _MOST_LEVEL for p in parts):
        raise PlanError(f"{option} {text}: want numbers from {least} to {_MOST_LEVEL}, as in 4,16")
    return tuple(sorted({int(part) for part in parts}))


def _read_api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise PlanError(f"--api-key-env: {name} is not set")
    return key


def _parse_targets(backends: Sequence[str], key: str | None) -> list[TargetServer]:
    targets = []
    for text in backends:
        name, equals, url = text.partition("=")
        if not (name and equals and url):
            raise PlanError(f"--backend {text}: want MODEL=URL, as in phi-3-mini=http://host:8000")
        targets.append(TargetServer(name, url, key))
    if not targets:
        raise PlanError("--backend: name at least one, as in phi-3-mini=http://host:8000")
    if len({target.name for target in targets}) < len(targets):
        raise PlanError("--backend: a model can be named once only")
    return targets
