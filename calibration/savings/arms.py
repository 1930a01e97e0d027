"""From raw samples of the experiment's counters to what each block of each arm added.

Rules:
- A block's arm comes from the pure assignment (`gateway.scheduling.switchback`), which the
  gateways' own `joulegate_experiment_info` describes.
- A counter of an arm moves in that arm's blocks, and a little after them: joules are settled late.
  What it adds after a block, before that arm's next one, belongs to the block.
- Differences of raw samples, never `increase()`; a fall is a restart, and counts from 0. Instances
  are added. A block that lies partly outside the window is left out.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from calibration.arrays import Floats
from calibration.recalibrate.prometheus import Series
from gateway.scheduling.switchback import ARMS, Switchback

PREFIX = "joulegate_experiment_"
INFO = f"{PREFIX}info"
COUNTERS = {
    "requests": f"{PREFIX}requests_total",
    "failures": f"{PREFIX}failures_total",
    "tokens": f"{PREFIX}tokens_total",
    "joules": f"{PREFIX}energy_joules_total",
    "estimated": f"{PREFIX}estimated_energy_joules_total",
    "seconds": f"{PREFIX}duration_seconds_total",
    "accuracy": f"{PREFIX}accuracy_total",
}
"""Metric of each counter; tokens and joules have a type or kind, and become `tokens.prompt`…"""


@dataclass(frozen=True, slots=True)
class ArmBlock:
    """What one block added, by counter."""

    number: int
    arm: str
    added: Mapping[str, float]


def read_switchback(
    series: Iterable[Series], name: str | None
) -> dict[str, tuple[Switchback, str]]:
    """Return each experiment that the gateways tell of, with what its baseline is.

    `name` picks one. Raises ValueError where gateways tell of one name in two ways.
    """
    found: dict[str, tuple[Switchback, str]] = {}
    for one in series:
        labels = one.metric
        if name is not None and labels.get("experiment") != name:
            continue
        told = Switchback(
            labels["experiment"],
            int(labels["seed"]),
            float(labels["block_seconds"]),
            float(labels["washout_seconds"]),
        )
        before = found.get(told.name)
        if before is not None and before != (told, labels["baseline"]):
            text = "was changed within the window, or gateways disagree: shorten --window"
            raise ValueError(f"experiment {told.name!r} {text}")
        found[told.name] = (told, labels["baseline"])
    return found


def read_blocks(
    switchback: Switchback, series: Mapping[str, Iterable[Series]], begin: float, end: float
) -> list[ArmBlock]:
    """Return what each whole block between two moments added, by counter."""
    first = int(np.ceil(begin / switchback.block_seconds))
    last = int(np.floor(end / switchback.block_seconds))
    numbers = list(range(first, last))
    added: dict[int, dict[str, float]] = {number: defaultdict(float) for number in numbers}
    for counter, found in series.items():
        for one in found:
            if one.metric.get("experiment") != switchback.name:
                continue
            arm = one.metric.get("arm", "")
            own = [number for number in numbers if switchback.arm_of(number) == arm]
            if arm not in ARMS or not own:
                continue
            kind = one.metric.get("kind") or one.metric.get("type")
            name = f"{counter}.{kind}" if kind else counter
            times, steps = _steps(one)
            blocks = np.floor(times / switchback.block_seconds)
            # The last of the arm's own blocks that had begun.
            where = np.searchsorted(own, blocks, side="right") - 1
            for at, amount in zip(where, steps, strict=True):
                if at >= 0:
                    added[own[at]][name] += float(amount)
    return [ArmBlock(number, switchback.arm_of(number), added[number]) for number in numbers]


def _steps(one: Series) -> tuple[Floats, Floats]:
    """Return when each scrape was and what it had added, the first left out.

    A step is put down to the middle between its two scrapes.
    """
    times = np.array([at for at, _ in one.values])
    values = np.array([float(value) for _, value in one.values])
    steps = np.diff(values)
    steps = np.where(steps < 0.0, values[1:], steps)
    return (times[1:] + times[:-1]) / 2.0, steps
