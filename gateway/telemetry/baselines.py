"""What routed requests were predicted to cost as chosen, and had another rule always chosen."""

from http import HTTPStatus
from typing import Final, NamedTuple

from gateway.scheduling.decide import NO_POLICY
from gateway.telemetry.record import RequestRecord

_OK: Final = HTTPStatus.OK.value
BASELINES: Final = ("chosen", "most-accurate", "cheapest", "hungriest")


class BaselineJoules(NamedTuple):
    """Predicted joules of one request, in the order of BASELINES."""

    chosen: float
    most_accurate: float
    cheapest: float
    hungriest: float


def find_baselines(record: RequestRecord) -> BaselineJoules | None:
    """Return them for a whole answer whose model was not named; None for any other."""
    planned = record.planned
    if (
        planned is None
        or record.outcome.code != _OK
        or planned.decision.policy == NO_POLICY
        or not record.model
    ):
        return None
    candidates = planned.decision.candidates
    joules = [scored.predicted_joules for scored in candidates]
    accuracies = [scored.accuracy for scored in candidates]
    answered = record.answered
    return BaselineJoules(
        (answered and answered.predicted_joules) or 0.0,
        joules[accuracies.index(max(accuracies))],
        min(joules),
        max(joules),
    )
