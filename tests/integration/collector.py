"""A collector of spans, and a gateway that tells it."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.config import TracingConfig
from tests.integration.harness import until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "congo=t61rcWkgMzE"}


def plain(value):
    """An attribute's value, whatever its type."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind)


def told(thing):
    """The attributes of a span, an event or a resource."""
    return {pair.key: plain(pair.value) for pair in thing.attributes}


class Collector:
    """An OTLP/HTTP collector in threads of its own, so that no test's event loop can hold it up."""

    def __init__(self):
        self.bodies = []
        self.spans = []
        self.resources = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert (self.path, self.headers["content-type"]) == (
                    "/v1/traces",
                    "application/x-protobuf",
                )
                collector.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def take(self, body):
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for group in request.resource_spans:
            self.resources.append(told(group.resource))
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    async def got(self, count=1):
        """Wait for so many spans."""
        await until(lambda: len(self.spans) >= count, f"{count} spans")
        return self.spans

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
def collector():
    with Collector() as found:
        yield found


async def traced(world, collector, *models, **fields):
    return await world.gate(*models, tracing=TracingConfig(collector.url, **fields))
