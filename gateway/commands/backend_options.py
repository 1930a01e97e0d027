"""The options of `joulegate backend`: light, for its help is shown without the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """The command line, as it was typed; the call's further words are passed on to vLLM."""

    context: typer.Context
    model: Annotated[
        str,
        typer.Argument(
            help="phi-3-mini, mistral-7b or falcon-7b; with --simulate also a model of --profile, "
            "or MODEL@GPU of the library."
        ),
    ]
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000
    model_path: Annotated[Path | None, typer.Option(help="Local weights to load instead.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto"
    simulate: Annotated[bool, typer.Option("--simulate", help="Serve simulated answers.")] = False
    speed: Annotated[
        float, typer.Option(min=0.001, max=100000, help="Simulator: simulated seconds per second.")
    ] = 1.0
    seed: Annotated[int, typer.Option(help="Simulator: random seed.")] = 0
    profile: Annotated[Path | None, typer.Option(help="Simulator: where its truth is.")] = None
    show: Annotated[bool, typer.Option("--print", help="Print vLLM's command only.")] = False
