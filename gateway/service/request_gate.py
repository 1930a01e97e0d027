"""What a request passes before it is sent where limits are configured: caps, turn, room.

Without `limits.max_running`, a model's `max_running` or a cap there is no gate, and no request pays
for it.
"""

import math
from collections.abc import Callable, Sequence
from http import HTTPStatus

from backends.deployment_room import DeploymentRoom
from backends.registry import Deployment
from gateway.config import GatewayConfig, LimitsConfig
from gateway.service.admission import AdmissionControl
from gateway.service.answer_caps import hold_to_caps
from gateway.service.client.cancellation import RequestCancellation
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.plan import RoutingPlan
from gateway.telemetry import count_workers
from gateway.telemetry.admission_metrics import AdmissionMetrics
from gateway.telemetry.record import RequestRecord


class RequestGate:
    """Holds one process's requests to the configuration's limits."""

    def __init__(self, limits: LimitsConfig, admission: AdmissionControl) -> None:
        self.limits = limits
        self.admission = admission

    async def admit(
        self,
        lifeline: RequestCancellation,
        record: RequestRecord,
        ask: InferenceRequest,
        plan: Callable[[], RoutingPlan],
    ) -> RoutingPlan:
        """Return the plan of a request once it may be sent. Raises BadRequest, GatewayBusy."""
        hold_to_caps(ask, self.limits)
        admission, caller = self.admission, ask.caller
        key = "" if caller is None else caller.identity.key_id
        priority = 0 if caller is None else caller.priority
        patience = _read_seconds(record.received.read_timeout)
        await admission.enter(lifeline, key, priority, patience)
        made = plan()
        while not made.decision.candidates and (rooms := _find_full_rooms(made)):
            await admission.wait_for_room(lifeline, rooms, key, priority, patience)
            made = plan()
        return made

    def leave(self, lifeline: RequestCancellation, record: RequestRecord) -> None:
        """Note that a request is over, whether it was admitted or not."""
        self.admission.leave(lifeline, answered=record.outcome.code == HTTPStatus.OK)


def change_gate(
    gate: RequestGate | None,
    config: GatewayConfig,
    deployments: Sequence[Deployment],
    metrics: AdmissionMetrics,
) -> RequestGate | None:
    """Return the gate of a configuration, made of the one before; None where it asks for none."""
    limits = config.limits
    rooms = [one.room for one in deployments if one.room is not None]
    wanted = rooms or any((limits.max_running, limits.max_answers, limits.max_output_tokens))
    if gate is None and not wanted:
        return None
    if gate is None:
        gate = RequestGate(limits, AdmissionControl(limits, metrics, workers=count_workers()))
    gate.limits = limits
    gate.admission.change_limits(limits)
    gate.admission.watch_rooms(rooms)
    # Once there was one it stays: somebody may be waiting at it.
    return gate


def _find_full_rooms(made: RoutingPlan) -> tuple[DeploymentRoom, ...]:
    """Return the rooms of the deployments that could serve a request and are full."""
    by_name = made.snapshot.by_name
    found = (
        by_name[out.model, out.deployment].deployment.room
        for out in made.decision.excluded
        if out.code == "full"
    )
    return tuple(room for room in found if room is not None)


def _read_seconds(told: bytes) -> float:
    """Return how long a client reads, as it says; for ever where it says nothing of use."""
    try:
        seconds = float(told)
    except ValueError:
        return math.inf
    return seconds if seconds > 0.0 else math.inf
