"""Twin runs: the same schedule with and without a class of requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.lab.lab import Lab
from tests.lab.results import LabRun
from tests.lab.schedule import Arrival


@dataclass(frozen=True, slots=True)
class Twins:
    """Two runs over the same time."""

    whole: LabRun
    without: LabRun
    charged_joules: float
    """What the class was charged in the run that had it."""

    @property
    def saved_joules(self) -> float:
        """By how much the counters advanced less without the class, idling included."""
        return (_counted(self.whole) - _counted(self.without)) / 1e6


def twins(
    make: Callable[[], Lab], arrivals: Sequence[Arrival], is_class: Callable[[Arrival], bool]
) -> Twins:
    """Run both; `make` builds a fresh lab for each."""
    whole = make().run(arrivals)
    rest = [one for one in arrivals if not is_class(one)]
    without = make().run(rest, seconds=whole.seconds)
    charged = sum(one.charged_microjoules or 0 for one in whole.requests if is_class(one.arrival))
    return Twins(whole, without, charged / 1e6)


def _counted(run: LabRun) -> int:
    return sum(one.advanced_microjoules for one in run.counters.values())
