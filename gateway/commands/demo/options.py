"""The options of `joulegate demo`: light, for its help is shown without the work."""

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The command line, as it was typed."""

    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port.")] = 8080
    once: Annotated[bool, typer.Option("--once", help="End after the table.")] = False
    loop: Annotated[
        bool, typer.Option("--loop", help="Show drift, recalibration and new routing instead.")
    ] = False
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=1000, help="Simulated seconds per second; default: 20, --loop 40."
        ),
    ] = None

    @property
    def simulated_speed(self) -> float:
        """Simulated seconds per second."""
        return self.speed or (40.0 if self.loop else 20.0)
