"""One model's plan of measurement, and how far it is."""

from dataclasses import dataclass, field

from calibration.endpoint.server import Info, Target
from calibration.profile.energy import Meter
from calibration.profile.rows_file import Observation
from calibration.profile.workload import Cell, Rule, Tally, Visit


@dataclass(slots=True)
class Job:
    """One model's plan, and what of it was measured before."""

    target: Target
    info: Info
    meter: Meter
    run: str
    rule: Rule
    visits: list[Visit]
    prompts: list[str] = field(default_factory=list)
    api: str = "chat"
    max_tokens: int = 1024
    seed: int = 0
    hardware: str = ""
    tallies: dict[str, Tally] = field(default_factory=dict)

    def tally(self, cell: Cell) -> Tally:
        """What there is of a cell."""
        return self.tallies.setdefault(cell.name, Tally())

    def take(self, row: Observation) -> bool:
        """Count a row of an earlier run; False if it is not of this plan. Raises PlanError."""
        if row.run != self.run or row.model != self.target.name:
            return False
        tally = self.tallies.setdefault(row.cell, Tally())
        tally.add(row.block, row.repeat, row.seconds, row.joules)
        return True

    def missing(self, visit: Visit) -> list[int]:
        """The repeats that a cell of a fixed number still needs."""
        cell = visit.cell
        count = len(self.prompts) if cell.of_prompts else self.rule.busy_repeats(cell.concurrency)
        return self.tally(cell).missing(count)

    def wants(self, visit: Visit) -> bool:
        """Whether there is anything left to measure in a visit."""
        if visit.cell.of_prompts or visit.cell.concurrency > 1:
            return bool(self.missing(visit))
        return self.tally(visit.cell).wants_more(visit.block, self.rule)
