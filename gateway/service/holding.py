"""Requests that wait while the servers of their model start: it was scaled to none.

Rules: only what nobody can serve now waits, and only for a model that has `wake_seconds`; the gauge
of held requests is what an autoscaler looks at; a request that several sleeping models could serve
waits for the one that stands first in the config. The wait ends with the first usable backend, or
with `wake_seconds`, and then it is decided anew.

Where a model's last server has just gone, its backends count as usable until probes say otherwise:
a request that meets none of them waits all the same, and is then sent by the plan that it has.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from backends.registry import Deployment
from gateway.scheduling.decision import RoutingDecision
from gateway.service.client.errors import NoServerThere
from gateway.service.request.plan import RoutingPlan
from gateway.service.upstream.upstream_response import UpstreamResponse
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
        with self._count_held(model) as until:
            while not plan.decision.candidates and time.monotonic() < until:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._has_server(model):
                    plan = replan()
        return plan

    async def open_once_awake(
        self, plan: RoutingPlan, open_response: Callable[[], Awaitable[UpstreamResponse]]
    ) -> UpstreamResponse:
        """Open the response to a plan; if no server was there, again as soon as one is.

        Raises as `open_response` does, NoServerThere once the wait is over.
        """
        try:
            return await open_response()
        except NoServerThere as error:
            ranked = (one.model for one in plan.decision.candidates)
            model = next((model for model in ranked if model in self._wake_seconds), None)
            if model is None or self._held >= _MOST_HELD:
                raise
            refused = error
        with self._count_held(model) as until:
            while time.monotonic() < until:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._has_server(model):
                    with contextlib.suppress(NoServerThere):
                        return await open_response()
        raise refused

    @contextlib.contextmanager
    def _count_held(self, model: str) -> Iterator[float]:
        """Count a request as held for a model; yield the monotonic second at which it gives up."""
        self._held += 1
        self._gauges[model].inc()
        try:
            yield time.monotonic() + self._wake_seconds[model]
        finally:
            self._held -= 1
            self._gauges[model].dec()

    def _has_server(self, model: str) -> bool:
        return any(backend.is_available for backend in self._backends[model])

    def _find_sleeping(self, decision: RoutingDecision) -> str | None:
        """Return the model to wait for; None where waiting would not help."""
        down = {out.model for out in decision.excluded if out.code == "down"}
        return next((model for model in self._wake_seconds if model in down), None)
