"""`GET /health`, `/ready`, `/metrics`: for probes and Prometheus; vLLM's `/version` and so on."""

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from litestar import Request, Response, get, route
from prometheus_client import CollectorRegistry

from backends.metrics_page import encode_metrics_in_turns
from gateway.service.pipeline import RequestPipeline


def make_handlers(gateway: RequestPipeline, scraped: CollectorRegistry) -> list[Any]:
    """Make the route handlers; `scraped` is the registry that /metrics shows."""

    @get("/health", name="health", sync_to_thread=False)
    def get_health() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @get(["/ready", "/readyz"], name="ready", sync_to_thread=False)
    def get_readiness() -> Response[dict[str, Any]]:
        """Say whether requests are welcome: a usable backend or one to wake, and not draining."""
        usable = sum(1 for backend in gateway.backends if backend.is_in_use)
        good = (usable > 0 or gateway.holder is not None) and not gateway.draining
        status = "draining" if gateway.draining else "ready" if good else "no usable backend"
        return Response(
            {"status": status, "usable_backends": usable, "inflight": gateway.inflight_requests},
            status_code=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    @get("/metrics", name="metrics")
    async def get_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Show every metric in Prometheus's text format, or OpenMetrics where asked for."""
        gateway.accounting.flush()
        gateway.publish_gauges()
        asked = request.headers.get("accept", "")
        page, kind = await encode_metrics_in_turns(scraped, asked)
        return Response(page, headers={"content-type": kind})

    @get("/version", name="version", sync_to_thread=False)
    def get_version() -> dict[str, str]:
        """Tell the gateway's version, as vLLM tells its own."""
        return {"version": version("joulegate")}

    @route("/ping", http_method=["GET", "POST"], name="ping", sync_to_thread=False, status_code=200)
    def get_ping() -> Response[bytes]:
        """Answer with nothing, as vLLM does for SageMaker."""
        return Response(b"")

    @get("/load", name="load", sync_to_thread=False)
    def get_load() -> dict[str, int]:
        """Tell how many requests are being served, as vLLM tells its own."""
        return {"server_load": gateway.inflight_requests}

    return [get_health, get_readiness, get_metrics, get_version, get_ping, get_load]
