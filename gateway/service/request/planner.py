"""Plans requests: what the asked name means, which arm of an experiment is due, who may serve it.

The name, the profile and what was learnt are those in force when a request is planned; it keeps
them to its end.
"""

from collections.abc import Mapping

from gateway.experiment_config import BaselineConfig, ExperimentConfig
from gateway.scheduling.switchback import BASELINE
from gateway.service.request.deciding import Deciding
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.named_request import check_named_target
from gateway.service.request.plan import RoutingPlan, make_plan
from gateway.service.request.previous_response import pin_to_previous
from gateway.service.request.profiles import ActiveProfiles
from gateway.service.request.response_ids import ResponseIds
from gateway.service.request.routing_table import ModelNames, RequestTarget
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ParsedRequest, RequestedName
from gateway.tokens import TokenCounter

_NO_ARM = (None, None)


class RequestPlanner:
    """What planning a request needs; one per process."""

    def __init__(
        self,
        names: ModelNames,
        profiles: ActiveProfiles,
        counter: TokenCounter,
        response_ids: ResponseIds,
        *,
        deciding: Deciding | None = None,
        experiment: ExperimentConfig | None = None,
    ) -> None:
        self.names = names
        """Replaced where another configuration is adopted."""
        self.profiles = profiles
        self.deciding = deciding or Deciding()
        self._counter = counter
        self._response_ids = response_ids
        self._switchback = None if experiment is None else experiment.make_switchback()
        self._baseline = None if experiment is None else experiment.baseline

    def plan_request(self, ask: InferenceRequest, headers: Mapping[bytes, bytes]) -> RoutingPlan:
        """Decide without sending. Raises BadRequest, UnknownModel or ModelNotAllowed."""
        return self.plan_target(ask, self._resolve_name(ask), headers, draws=False)

    def plan_target(
        self,
        ask: InferenceRequest,
        target: RequestTarget,
        headers: Mapping[bytes, bytes],
        baseline: BaselineConfig | None = None,
        *,
        draws: bool = True,
    ) -> RoutingPlan:
        """Decide among a target's models; `draws` lets it explore. Raises BadRequest."""
        return make_plan(
            ask, target, headers, self.profiles.live, self._counter, self.deciding, baseline,
            draws=draws,
        )  # fmt: skip

    def note_target(
        self, ask: InferenceRequest, record: RequestRecord
    ) -> tuple[RequestTarget, BaselineConfig | None]:
        """Note what a request asks for; return it, and the baseline that it is to be served by.

        Raises UnknownModel, ModelNotAllowed, UnknownResponse.
        """
        record.parsed = ParsedRequest(ask.stream)
        target = self._resolve_target(ask)
        arm, baseline = self._draw_arm(record.received.at) if target.model is None else _NO_ARM
        record.target = RequestedName(target.label, target.preset, arm)
        return target, baseline

    def _resolve_target(self, ask: InferenceRequest) -> RequestTarget:
        """Return the models that may serve a request."""
        target = self._resolve_name(ask)
        if ask.kind is EndpointKind.RESPONSES:
            return pin_to_previous(ask, target, self._response_ids)
        if isinstance(ask.kind, NamedEndpoint):
            check_named_target(target)
        return target

    def _resolve_name(self, ask: InferenceRequest) -> RequestTarget:
        """Return what the asked name means for who asks. Raises UnknownModel, ModelNotAllowed."""
        names = self.names if ask.caller is None else ask.caller.names
        return names.resolve_name(ask.model)

    def _draw_arm(self, at: float) -> tuple[str | None, BaselineConfig | None]:
        """Return the arm that a request routed `at` then counts for; the baseline, where due."""
        if self._switchback is None:
            return _NO_ARM
        due = self._switchback.arm_in_force(at) == BASELINE
        return self._switchback.arm_at(at), self._baseline if due else None
