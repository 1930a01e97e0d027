"""`GET /`: what this is, for whoever opens the gateway's address in a browser.

One small page without scripts and without anything from elsewhere; who does not ask for HTML gets
the same as JSON.
"""

import base64
import hashlib
from collections.abc import Container
from html import escape
from importlib.metadata import version
from typing import Any, Final

from litestar import Request, Response, get

from gateway.api.callers import find_names
from gateway.api.models import list_contexts
from gateway.api.paths import list_paths
from gateway.service.client.errors import InvalidApiKey
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.routing_table import AUTO

DOCS: Final = "https://github.com/joulegate/joulegate/blob/main"
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
code, pre { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; padding: .75rem; border: 1px solid #8885; border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8883; }
td:last-child, th:last-child { text-align: right; padding-right: 0; }
nav a { margin-right: 1rem; white-space: nowrap; }
.dim { opacity: .75; margin-top: .25rem; }
"""
_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
# Relative, for whoever serves the gateway under a prefix.
_LINKS: Final = (
    ("metrics", "metrics"),
    ("readiness", "ready"),
    ("models", "v1/models"),
    ("OpenAPI", "schema/openapi.json"),
    ("documentation", f"{DOCS}/README.md"),
)


def make_handler(gateway: RequestPipeline) -> Any:
    """Make the route handler."""

    @get("/", name="root", sync_to_thread=False)
    def get_root(request: Request[Any, Any, Any]) -> Response[Any]:
        """Say what this is and where to go from here."""
        names = gateway.planner.names
        usable = sum(1 for backend in gateway.backends if backend.is_available)
        contexts = _list_shown(list_contexts(names.config), gateway, request)
        served = list_paths(request.app)
        if "text/html" not in request.headers.get("accept", ""):
            told = {
                "name": "joulegate",
                "version": version("joulegate"),
                "models": list(contexts),
                "usable_backends": usable,
                "paths": served,
                "documentation": f"{DOCS}/README.md",
            }
            return Response(told)
        page = render_page(
            contexts, list(names.presets), usable, len(gateway.backends), served=served
        )
        return Response(
            page.encode(),
            media_type="text/html",
            headers={
                "content-security-policy": _POLICY,
                "x-content-type-options": "nosniff",
                "referrer-policy": "no-referrer",
                "vary": "accept",
            },
        )

    return get_root


def _list_shown(
    contexts: dict[str, int], gateway: RequestPipeline, request: Request[Any, Any, Any]
) -> dict[str, int]:
    """Return the models that who asks may use: none, where a key is needed and none came."""
    try:
        names = find_names(gateway, request.scope["headers"])
    except InvalidApiKey:
        return {}
    return {model: tokens for model, tokens in contexts.items() if names.offers_name(model)}


def render_page(
    contexts: dict[str, int],
    presets: list[str],
    usable: int,
    backends: int,
    *,
    served: Container[str],
) -> str:
    """Return the page; every name in it is escaped, and it leads to paths of `served` alone."""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{context:,}</td></tr>"
        for name, context in contexts.items()
    )
    named = ", ".join(f"<code>{AUTO}:{escape(name)}</code>" for name in presets)
    links = "".join(
        f'<a href="{url}">{text}</a> '
        for text, url in _LINKS
        if url.startswith(DOCS) or f"/{url}" in served
    )
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Joulegate</title>
<style>{_STYLE}</style>
<h1>Joulegate</h1>
<p class="dim">version {escape(version("joulegate"))} · {usable} of {backends} backends usable</p>
<p>An OpenAI-compatible gateway: <code>{AUTO}</code> is answered by the model that best trades
accuracy, energy and time for the request.</p>
<nav>{links}</nav>
<h2>Models</h2>
<table><tr><th>name</th><th>context, tokens</th></tr>{rows}</table>
<p>Routed: <code>{AUTO}</code>, {named}.</p>
<h2>Ask it</h2>
<p>The base URL of an OpenAI client is this address with <code>/v1</code>.</p>
<pre>curl ADDRESS/v1/chat/completions -H 'content-type: application/json' \\
  -d '{escape(body, quote=False)}'</pre>
</html>
"""
