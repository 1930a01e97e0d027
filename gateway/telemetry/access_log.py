"""The access line: who asked, what came of it, what it cost. No body, no key and no error text.

It is written with the joules, once these are final: at once without a meter, else seconds later.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from gateway.telemetry.record import RequestRecord


class AccessLine(NamedTuple):
    """One request's line."""

    record: RequestRecord

    def to_log_line(self) -> dict[str, Any]:
        """Return what is written of it."""
        record = self.record
        received, served, settled = record.received, record.served, record.settled
        caller = received.caller
        return {
            "at": datetime.fromtimestamp(received.at, UTC).isoformat(timespec="milliseconds"),
            "id": received.id,
            "client": received.client,
            "key_id": caller and caller.key_id,
            "tenant": caller and caller.tenant,
            "kind": received.kind,
            "requested": record.target.requested,
            "model": record.model or None,
            "backend": record.backend or None,
            "stream": record.parsed.stream,
            "code": record.outcome.code,
            "attempts": len(record.attempts),
            "seconds": round(record.seconds, 6),
            "ttft_seconds": served.ttft_seconds,
            "prompt_tokens": served.prompt_tokens,
            "completion_tokens": served.completion_tokens,
            "joules": settled and settled.joules,
            "method": settled and settled.method,
        }
