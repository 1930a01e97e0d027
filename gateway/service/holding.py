"""Requests that wait while the servers of their model start: it was scaled to none.

Rules: only what nobody can serve now waits, and only for a model that has `wake_seconds`; the gauge
of held requests is what an autoscaler looks at; a request that several sleeping models could serve
waits for the one that stands first in the config. The wait ends with the first usable backend, or
with `wake_seconds`, and then it is decided anew.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from backends.registry import Deployment
from gateway.scheduling.decision import RoutingDecision
from gateway.service.request.plan import RoutingPlan
from gateway.telemetry.metrics import GatewayMetrics

_LOOK_SECONDS: Final = 0.2
_MOST_HELD: Final = 1000
"""Held by one process; more are refused, as all are where nothing is to be woken."""


class RequestHolder:
    """Holds requests for sleeping models; `wake_seconds` says by model for how long."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        wake_seconds: Mapping[str, float],
        metrics: GatewayMetrics,
    ) -> None:
        self._wake_seconds = wake_seconds
        self._backends = {
            model: [
                backend
                for deployment in deployments
                if deployment.model == model
                for backend in deployment.backends
            ]
            for model in wake_seconds
        }
        self._gauges = {model: metrics.requests_held.labels(model) for model in wake_seconds}
        self._held = 0

    async def hold_request(
        self, plan: RoutingPlan, replan: Callable[[], RoutingPlan]
    ) -> RoutingPlan:
        """Return a plan with candidates as soon as there is one; else, in the end, one without."""
        model = self._find_sleeping(plan.decision)
        if model is None or self._held >= _MOST_HELD:
            return plan
        until = time.monotonic() + self._wake_seconds[model]
        self._held += 1
        self._gauges[model].inc()
        try:
            while not plan.decision.candidates and time.monotonic() < until:
                await asyncio.sleep(_LOOK_SECONDS)
                if any(backend.is_available for backend in self._backends[model]):
                    plan = replan()
        finally:
            self._held -= 1
            self._gauges[model].dec()
        return plan

    def _find_sleeping(self, decision: RoutingDecision) -> str | None:
        """Return the model to wait for; None where waiting would not help."""
        down = {out.model for out in decision.excluded if out.code == "down"}
        return next((model for model in self._wake_seconds if model in down), None)
