"""What a run gives: each request's truth and charge, and where the counters' joules went."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from backends.simulator.engine_request import RequestCost
from tests.lab.schedule import Arrival


@dataclass(slots=True)
class LabRequest:
    """One request of a run."""

    number: int
    arrival: Arrival
    backend: str
    tokens_out: int
    cached_tokens: int = 0
    """Of the prompt, found in its engine's prefix cache."""
    truth: RequestCost | None = None
    """None while it has not ended."""
    ended_seconds: float = 0.0
    others: float = 0.0
    """Time-mean of the other requests in its engine, waiting ones included."""
    harmonic_others: float = 0.0
    """Harmonic mean of all that were in its engine, less 1: as many would share each step alike."""
    charged_microjoules: int | None = None
    """None where no gateway reported it or nothing was settled."""
    method: str = ""

    @property
    def error(self) -> float:
        """Charged over true joules, minus 1."""
        assert self.truth is not None
        assert self.charged_microjoules is not None
        return self.charged_microjoules / self.truth.microjoules - 1.0


@dataclass(slots=True)
class Counters:
    """One ledger's books at the end; microjoules."""

    advanced_microjoules: int
    request_microjoules: int
    other_microjoules: int
    idle_microjoules: int
    unsettled_microjoules: int
    true_busy_microjoules: int
    """What requests truly cost on this GPU, unreported ones included."""
    shown: list[tuple[float, int]] = field(default_factory=list)
    """(seconds, the counter) whenever it was read."""

    @property
    def conserved(self) -> bool:
        """Whether every microjoule is in one place."""
        parts = (self.request_microjoules, self.other_microjoules, self.idle_microjoules)
        return self.advanced_microjoules == sum(parts) + self.unsettled_microjoules

    @property
    def other_share(self) -> float:
        """Of the energy that was not idle."""
        return self.other_microjoules / (self.request_microjoules + self.other_microjoules)


@dataclass(slots=True)
class LabRun:
    """A run that is over."""

    requests: list[LabRequest]
    counters: dict[str, Counters]
    """By GPU."""
    seconds: float

    def measured(self, wanted: Callable[[LabRequest], bool] = lambda _: True) -> list[LabRequest]:
        """Those that ended whole and were charged."""
        return [
            one
            for one in self.requests
            if one.truth is not None
            and not one.truth.aborted
            and one.charged_microjoules is not None
            and wanted(one)
        ]

    def median_error(self, wanted: Callable[[LabRequest], bool] = lambda _: True) -> float:
        """Median relative error of a request's joules."""
        return median(_errors(self.measured(wanted)))

    def p95_error(self, wanted: Callable[[LabRequest], bool] = lambda _: True) -> float:
        """The relative error that 95% of requests stay under."""
        errors = sorted(_errors(self.measured(wanted)))
        return errors[min(int(0.95 * len(errors)), len(errors) - 1)]

    def sum_error(self, wanted: Callable[[LabRequest], bool] = lambda _: True) -> float:
        """All charged joules against all true ones."""
        kept = self.measured(wanted)
        true = sum(one.truth.microjoules for one in kept if one.truth is not None)
        return sum(one.charged_microjoules or 0 for one in kept) / true - 1.0

    def methods(self) -> dict[str, int]:
        """How many were measured how."""
        found: dict[str, int] = {}
        for one in self.requests:
            if one.method:
                found[one.method] = found.get(one.method, 0) + 1
        return found


def _errors(requests: Iterable[LabRequest]) -> list[float]:
    return [abs(one.error) for one in requests]
