"""The bounds that a refit must pass and the weight of the live profile, as options of the command.

Light: its help is shown without the numeric stack. What each gate means: `gates` and docs.
"""

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The gates' bounds."""

    min_requests: Annotated[int, typer.Option(min=10, help="Gate: least requests.")] = 100
    min_blocks: Annotated[int, typer.Option(min=4, help="Gate: least busy blocks.")] = 8
    min_spread: Annotated[
        float, typer.Option(min=0, help="Gate: least sd over mean of either length.")
    ] = 0.05
    max_condition: Annotated[float, typer.Option(min=1, help="Gate: largest condition number.")] = (
        300.0
    )
    max_interval: Annotated[
        float, typer.Option(min=0, help="Gate: largest half of a 95% interval, as a share.")
    ] = 0.25
    max_change: Annotated[
        float, typer.Option(min=1, help="Gate: largest factor between old and new.")
    ] = 3.0
    max_influence: Annotated[
        float, typer.Option(min=0, help="Gate: most that one scrape may move the mean, as a share.")
    ] = 0.1
    max_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Gate: most joules missing where requests are dear.")
    ] = 0.1
    min_gain: Annotated[
        float,
        typer.Option(min=0, max=1, help="Gate: by which share the live profile must be off."),
    ] = 0.03


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """How strongly few requests are pulled towards the live profile."""

    prior_requests: Annotated[
        float, typer.Option(min=0, help="Requests that the live profile counts as beside few.")
    ] = 100.0
    enough_requests: Annotated[
        int, typer.Option(min=1, help="Requests from which on it no longer counts.")
    ] = 2000

    def compute_weight(self, n: int) -> float:
        """Return how many requests the live profile counts as, beside n."""
        return self.prior_requests * max(0.0, 1.0 - n / self.enough_requests)
