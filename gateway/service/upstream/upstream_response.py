"""An upstream response that has begun, with what is noted of it until it is closed."""

import time

from msgspec import Struct

from backends.backend import Backend, LoadIntegral
from backends.client import BackendResponse
from backends.meter.client.request_handle import MeteredAttempt
from backends.registry import Deployment
from gateway.scheduling.decision import ScoredCandidate
from gateway.service.byte_budget import HeldBytes
from gateway.service.upstream.relay import StreamedResponse, UnaryResponse
from gateway.service.upstream.usage_impact import UsageImpact
from gateway.telemetry.boundary_account import HostShare

_LEAST_PART = 1e-6
_NOTHING_YET = LoadIntegral()


class UpstreamResponse(Struct):
    """An answer that has begun: a stream at its first content, or a whole body.

    `running` is how many the backend was serving already, `mean_running` how many others it served
    meanwhile, `harmonic_running` the harmonic mean of itself and them, less 1: as many at all times
    would have left it as large a part of each step. Times are monotonic seconds.
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
    harmonic_running: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    load_before: LoadIntegral = _NOTHING_YET
    """Of the backend, when this began."""
    metered: MeteredAttempt | None = None
    host_share: HostShare | None = None
    impact: UsageImpact | None = None
    held: HeldBytes | None = None

    def measure_load(self) -> None:
        """Note the mean number of other requests that the backend served since this began."""
        now = time.monotonic()
        lasted = now - self.began
        if lasted > 0.0:
            ran, shared = self.backend.integrate_load()
            before = self.load_before
            self.mean_running = max(0.0, (ran - before.running_seconds) / lasted - 1.0)
            part = max(shared - before.share_seconds, _LEAST_PART * lasted)
            self.harmonic_running = max(0.0, lasted / part - 1.0)
