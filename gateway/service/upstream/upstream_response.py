"""An upstream response that has begun, with what is noted of it until it is closed."""

import time
from dataclasses import dataclass

from backends.client import BackendResponse
from backends.meter.client.request_handle import MeteredAttempt
from backends.registry import Backend, Deployment
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.byte_budget import HeldBytes
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse
from gateway.service.upstream.usage_impact import UsageImpact
from gateway.telemetry.boundary_account import HostShare


@dataclass(slots=True)
class UpstreamResponse:
    """An answer that has begun: a stream at its first content, or a whole body.

    `running` is how many the backend was serving already, `mean_running` how many others it served
    meanwhile; times are monotonic seconds.
    """

    scored: ScoredCandidate
    deployment: Deployment
    backend: Backend
    answer: BackendResponse
    stream: StreamedResponse | None = None
    body: bytes = b""
    content_type: str | None = None
    unary: UnaryResponse | None = None
    half_open_trial: int = 0
    running: int = 0
    mean_running: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    running_seconds: float = 0.0
    """What the backend had run when this began."""
    metered: MeteredAttempt | None = None
    host_share: HostShare | None = None
    impact: UsageImpact | None = None
    held: HeldBytes | None = None

    def measure_load(self) -> None:
        """Note the mean number of other requests that the backend served since this began."""
        now = time.monotonic()
        if now > self.began:
            ran = self.backend.running_seconds() - self.running_seconds
            self.mean_running = max(0.0, ran / (now - self.began) - 1.0)
