"""Config in, an ASGI application out; its parts and lifespan are of `runtime.py`.

What bypasses Litestar's router: a POST without an Origin header to one of the inference paths
goes to the same handler directly (`bypass_router_for_inference`). Why: for such a request its
routing, scope state and middleware have nothing to do, and cost CPU on the one path that is hot.
Everything else (other paths and methods, browsers' CORS) goes through Litestar.
Measured in one run with and without it in turn (unary, 32 connections, one core, Python 3.11, 8
rounds on a shared machine): 385 us of CPU a request for 443 and 2,575 requests/s for 2,240. Without
it a request takes 1.18 times the CPU (median of the rounds, 1.06 to 1.57); on the same machine
overloaded by other work 1.09 (1.02 to 1.29).
"""

import random
from collections.abc import Iterable
from pathlib import Path

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.plugins import PluginProtocol
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api import (
    admin,
    errors,
    feedback,
    health,
    inference,
    models,
    named,
    openapi,
    requests,
    root,
    route,
    usage,
)
from gateway.api.protocol import PIECES
from gateway.config import GatewayConfig
from gateway.runtime import GatewayRuntime
from gateway.service.client import headers
from gateway.service.request.endpoint import EndpointKind


def create_app(
    config: GatewayConfig,
    *,
    path: Path | None = None,
    rng: random.Random | None = None,
    signals: bool = False,
) -> Litestar:
    """Build the application. Raises ProfileError, ConfigError.

    `app.state.runtime` is the GatewayRuntime, `app.state.inference` the handlers for
    `bypass_router_for_inference`. `path` is the file that `config` was read from, which is then
    watched for changes. With `signals` it handles SIGTERM, SIGINT and SIGHUP, which only
    the main thread of a process may.
    """
    rng = rng or random.Random()  # noqa: S311 - spreads load, hides nothing
    runtime = GatewayRuntime(config, rng, path=path, signals=signals)
    gateway = runtime.gateway
    inferences = {
        kind.url_path: inference.make_handler(kind, gateway, config.timeouts)
        for kind in EndpointKind
    }
    app = _BareLitestar(
        route_handlers=[
            *inferences.values(),
            route.make_handler(gateway, config.timeouts),
            *models.make_handlers(gateway),
            requests.make_handler(gateway),
            feedback.make_handler(gateway, config.timeouts),
            usage.make_handler(gateway, config.boundary.currency),
            root.make_handler(gateway),
            *named.make_handlers(gateway, config.timeouts),
            *health.make_handlers(gateway, runtime.scrape_registry),
            openapi.make_handler(),
            *(admin.make_handlers(gateway, config.timeouts) if config.admin else ()),
        ],
        lifespan=[runtime.run_lifespan],
        exception_handlers=errors.HANDLERS,
        cors_config=_make_cors_config(config),
        openapi_config=None,
        logging_config=None,
    )
    app.state.runtime = runtime
    app.state.inference = inferences
    return app


class _BareLitestar(Litestar):
    """Litestar without its plugins for pydantic and attrs, which nothing here hands it.

    It would import whichever is installed: 10 MB that stay resident.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return plugins


def bypass_router_for_inference(app: Litestar) -> ASGIApp:
    """Route plain inference requests straight to their handlers, all else through `app`.

    Why, and what it is worth: at the top of this file.
    """
    direct = {path: handler.fn for path, handler in app.state.inference.items()}

    async def route_request(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "HEAD":
            # The server leaves the body out, because the request's own scope still says HEAD.
            scope = {**scope, "method": "GET"}  # type: ignore[assignment]
        handler = direct.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if handler is None or _has_origin(scope["headers"]):
            try:
                await app(scope, receive, send)
            finally:
                # It holds what holds the scope.
                (scope.get("extensions") or {}).pop(PIECES, None)
        else:
            await handler(scope, receive, send)

    return route_request


def _has_origin(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    for name, _ in headers:  # noqa: SIM110 - a generator costs a request some 2 us
        if name == b"origin":
            return True
    return False


def _make_cors_config(config: GatewayConfig) -> CORSConfig | None:
    if not config.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(config.cors_origins),
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=list(headers.EXPOSED),
        max_age=600,
    )
