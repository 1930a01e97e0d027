"""One OpenTelemetry span per request, made of its finished record; needs the extra `otel`.

Rules: a request costs the event loop one append; the span is made and sent in the batch processor's
own thread; a collector that is slow, gone or wrong costs spans, never a request and at most
FLUSH_SECONDS of the shutdown. What stands in a span is request_span's.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any, Final
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway.telemetry.record import RequestRecord
from gateway.telemetry.request_span import FinishedRequest, make_span
from gateway.telemetry.trace_context import TraceSampler

FLUSH_SECONDS: Final = 3.0
"""What a shutdown waits for a collector."""

_TURN_SECONDS: Final = 50e-6
_TURN_SPANS: Final = 4


class RequestTracer:
    """Takes finished records and sends those that are to be recorded to a collector."""

    def __init__(self, endpoint: str, sample_ratio: float, service_name: str) -> None:
        self.sampler = TraceSampler(sample_ratio)
        version = metadata.version("joulegate")
        self._resource = Resource.create(
            {
                "service.name": service_name,
                "service.version": version,
                "service.instance.id": str(uuid4()),
            }
        )
        logging.getLogger("opentelemetry.util.re").addFilter(_hide_headers)
        self._exporter: SpanExporter = OTLPSpanExporter(endpoint=endpoint)
        scope = InstrumentationScope("joulegate", version)
        self._processor: SpanProcessor = BatchSpanProcessor(
            _RequestSpanExporter(self._exporter, scope)
        )

    def add_record(self, record: RequestRecord) -> None:
        """Take a record that changes no more."""
        # One refused before it was sent anywhere has no ids yet.
        trace = self.sampler.begin_span(record.trace)
        if trace.span_id:
            self._processor.on_end(FinishedRequest(record, trace, self._resource))

    async def close(self) -> None:
        """Send what is left, for FLUSH_SECONDS at most."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._processor.shutdown()
            # The loop may not have waited.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # The processor's own patience is half a minute, and endless in older ones.
        threading.Thread(target=shut_down, daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await done.wait()
        except TimeoutError:
            self._exporter.shutdown()


def _hide_headers(record: logging.LogRecord) -> bool:
    """Leave a header of OTEL_EXPORTER_OTLP_HEADERS that cannot be used out of the complaint."""
    record.args = ("(not shown)",)
    return True


class _LazySpanBatch(Sequence[ReadableSpan]):
    """Spans made one by one while they are encoded, leaving the event loop its turn in between.

    Without that a worker that is full answers its slowest 1 % twice as late (19 ms for 10); a turn
    before every span would cost half of the spans then.
    """

    def __init__(self, finished: Sequence[FinishedRequest], scope: InstrumentationScope) -> None:
        self._finished = finished
        self._scope = scope

    def __len__(self) -> int:
        return len(self._finished)

    def __getitem__(self, index: Any) -> Any:
        return make_span(self._finished[index], self._scope)

    def __iter__(self) -> Iterator[ReadableSpan]:
        for place, each in enumerate(self._finished):
            if place % _TURN_SPANS == 0:
                time.sleep(_TURN_SECONDS)
            yield make_span(each, self._scope)


class _RequestSpanExporter(SpanExporter):
    """Makes the spans and hands them on; runs in the processor's thread."""

    def __init__(self, exporter: SpanExporter, scope: InstrumentationScope) -> None:
        self._exporter = exporter
        self._scope = scope

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        finished = [span for span in spans if isinstance(span, FinishedRequest)]
        return self._exporter.export(_LazySpanBatch(finished, self._scope))

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()
