"""What the client of a failed request is sent, and what is noted of it."""

import asyncio
import logging

from gateway.service.client import headers as names
from gateway.service.client.api_error import ApiError
from gateway.service.client.cancellation import CancelReason, RequestCancellation
from gateway.service.client.errors import GatewayDraining, GatewayTimeout
from gateway.service.client.response import ResponseWriter
from gateway.telemetry.metrics import GatewayMetrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_stages import ClientOutcome

_log = logging.getLogger("joulegate")

CLIENT_GONE = 499
"""nginx's code for a client that closed first; no client ever sees it."""
_ATTEMPTS = names.ATTEMPTS.encode()


class FailureReporter:
    """Tells clients, records and metrics of requests that failed; one per process."""

    def __init__(
        self, metrics: GatewayMetrics, *, stall_seconds: float, stream_seconds: float
    ) -> None:
        self._metrics = metrics
        self._stall_seconds = stall_seconds
        self._stream_seconds = stream_seconds

    async def send_error(
        self,
        record: RequestRecord,
        reply: ResponseWriter,
        lifeline: RequestCancellation,
        error: ApiError,
    ) -> None:
        """Send the client an error, as a response or as a stream's last frame, if it reads."""
        record.outcome = ClientOutcome(error.status, error.message, error.logged)
        record.blame_last_attempt()
        attempts = (_ATTEMPTS, str(len(record.attempts)).encode())
        lifeline.resume()
        lifeline.set_deadline(self._stall_seconds, CancelReason.STALLED)
        try:
            await reply.send_error(error, [attempts])
        except asyncio.CancelledError:
            if lifeline.consume() is None:
                raise
            self._note_client_gone(record, reply)

    def resolve_cancellation(
        self, record: RequestRecord, reply: ResponseWriter, cut: CancelReason
    ) -> ApiError | None:
        """Note a cancelled request; return the error that its client is to be sent, if any."""
        if reply.ended:
            return None
        record.blame_last_attempt()
        if cut is CancelReason.CLIENT_GONE:
            self._note_client_gone(record, reply)
            return None
        if reply.status:
            self.note_broken(record, cut.value, "cut off")
        if cut is CancelReason.DRAINING:
            return GatewayDraining("the gateway is shutting down", retry_after_seconds=1)
        if cut is CancelReason.TOO_LONG:
            return GatewayTimeout(f"the stream went on for over {self._stream_seconds:g} s")
        return GatewayTimeout(f"{record.model} sent nothing for {self._stall_seconds:g} s")

    def note_broken(self, record: RequestRecord, reason: str, detail: str) -> None:
        """Note that an answer broke after it had begun."""
        self._metrics.broken_count(record.model, reason).inc()
        _log.warning(
            "request %s: stream of %s at %s broken, %s: %s",
            record.id, record.model, record.backend, reason, detail,
        )  # fmt: skip

    def _note_client_gone(self, record: RequestRecord, reply: ResponseWriter) -> None:
        """Note that the client disconnected, or stopped reading."""
        if reply.ended:
            return
        why = "the client stopped reading" if reply.blocked else "the client left"
        record.outcome = ClientOutcome(CLIENT_GONE, why)
        self._metrics.disconnects.inc()
        # Closing would wait for what is buffered to be read.
        reply.abort()
