"""One model's plan of measurement, and how far it is."""

from dataclasses import dataclass, field

from calibration.endpoint.server import ServerInfo, TargetServer
from calibration.profile.energy import ProfilingMeter
from calibration.profile.rows_file import MeasurementRow
from calibration.profile.workload import CellTally, CellVisit, StopRule, WorkloadCell


@dataclass(slots=True)
class MeasurementJob:
    """One model's plan, and what of it was measured before."""

    target: TargetServer
    info: ServerInfo
    meter: ProfilingMeter
    run: str
    rule: StopRule
    visits: list[CellVisit]
    prompts: list[str] = field(default_factory=list)
    api: str = "chat"
    max_tokens: int = 1024
    seed: int = 0
    hardware: str = ""
    tallies: dict[str, CellTally] = field(default_factory=dict)

    def get_tally(self, cell: WorkloadCell) -> CellTally:
        """What there is of a cell."""
        return self.tallies.setdefault(cell.name, CellTally())

    def count_earlier_row(self, row: MeasurementRow) -> bool:
        """Count a row of an earlier run; False if it is not of this plan. Raises PlanError."""
        if row.run != self.run or row.model != self.target.name:
            return False
        tally = self.tallies.setdefault(row.cell, CellTally())
        tally.add_row(row.block, row.repeat, row.seconds, row.joules)
        return True

    def list_missing_repeats(self, visit: CellVisit) -> list[int]:
        """The repeats that a cell of a fixed number still needs."""
        cell = visit.cell
        count = (
            len(self.prompts) if cell.of_prompts else self.rule.count_busy_repeats(cell.concurrency)
        )
        return self.get_tally(cell).list_missing_repeats(count)

    def has_work_left(self, visit: CellVisit) -> bool:
        """Whether there is anything left to measure in a visit."""
        if visit.cell.of_prompts or visit.cell.concurrency > 1:
            return bool(self.list_missing_repeats(visit))
        return self.get_tally(visit.cell).wants_more(visit.block, self.rule)
