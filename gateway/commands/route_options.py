"""The options of `joulegate route`: light, for its help is shown without the work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The command line, as it was typed."""

    prompt: Annotated[
        str | None, typer.Option("--prompt", help="The user's message; - reads stdin.")
    ] = None
    logged: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a prompt: a decision log, or what holds a decision, to be made again, "
            "by the weights or policy given here."
        ),
    ] = None
    request: Annotated[
        str | None, typer.Option(help="With --logged: the request's id; default: the last.")
    ] = None
    weight_accuracy: Annotated[float | None, typer.Option(help="How much accuracy counts.")] = None
    weight_energy: Annotated[float | None, typer.Option(help="How much energy counts.")] = None
    weight_time: Annotated[float | None, typer.Option(help="How much time counts.")] = None
    policy: Annotated[str | None, typer.Option(help="relative, fair-ols or hybrid.")] = None
    model: Annotated[str, typer.Option(help="auto, auto:PRESET or a model's name.")] = "auto"
    max_tokens: Annotated[int | None, typer.Option(help="Limit on new tokens.", min=1)] = None
    max_latency_ms: Annotated[float | None, typer.Option(help="Bound on milliseconds.")] = None
    max_energy_joules: Annotated[float | None, typer.Option(help="Bound on joules.")] = None
    min_accuracy: Annotated[float | None, typer.Option(help="Bound on accuracy.")] = None
    infeasible: Annotated[str | None, typer.Option(help="best-effort or reject.")] = None
    config: Annotated[
        Path | None, typer.Option("--config", help="gateway.yaml; see docs/reference/config.md.")
    ] = None
    profile: Annotated[Path | None, typer.Option(help="Profile file; default: shipped.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False

    @property
    def steering(self) -> dict[str, float | str | None]:
        """What a request would say in its headers, by their names without the prefix."""
        return {name.replace("_", "-"): getattr(self, name) for name in _STEERING}


_STEERING = (
    "weight_accuracy", "weight_energy", "weight_time", "policy", "max_latency_ms",
    "max_energy_joules", "min_accuracy", "infeasible",
)  # fmt: skip
