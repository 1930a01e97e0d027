"""The addresses of servers in a config: what is a root, and what only looks like one."""

import re
from urllib.parse import urlsplit

from backends.http.url import hide_credentials

_PAGES = r"metrics|health|ping|version|ready|readyz|docs|docs/oauth2-redirect|redoc|openapi\.json"
_TEXTS = (
    r"chat/completions(?:/(?:batch|render|derender))?|completions(?:/(?:render|derender))?"
    r"|tokenize|detokenize|tokenizer_info|score|rerank|pooling|classify"
)
_OTHERS = (
    "load|invocations|generative_scoring|inference/v1/generate|cohere/v2/chat(?:/render)?"
    "|(?:inference/v1/)?abort_requests|server_info|kv_event_sources|collective_rpc"
    "|fault_tolerance/(?:apply|status)|get_world_size|is_paused|is_scaling_elastic_ep|is_sleeping"
    "|pause|resume|sleep|wake_up|scale_elastic_ep|start_profile|stop_profile|weight_checker"
    "|weight_info|(?:init|shutdown)_weight_transfer_engine|release_kv_cache_memory"
    "|reset_(?:encoder|mm|prefix)_cache|(?:start(?:_draft)?|finish)_weight_update"
    "|update_weight_version|update_weights"
)
_BEHIND_VERSION = (
    "embed|embeddings|models(?:/.*)?|responses(?:/.*)?|messages(?:/(?:count_tokens|render))?"
    "|audio/(?:transcriptions|translations)|chat|realtime|systemone|(?:un)?load_lora_adapter"
)
_ENDPOINT = re.compile(
    rf"(?:/v[12])?/(?:{_PAGES}|{_TEXTS})/?$|/(?:{_OTHERS})/?$|/v[12]/(?:{_BEHIND_VERSION})/?$"
)
"""The paths of a model server's endpoints; what may as well be a proxy's prefix only behind /v1."""
_PAGE = re.compile(rf"/(?:{_PAGES})/?$")


def server_root(url: str) -> str:
    """Return a server's root without a trailing slash or /v1, whichever way it was written."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def check_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is a plain http(s) address."""
    if url != url.strip() or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError(
            f"{key}: {hide_credentials(url)!r} is not a URL: there is white space in it"
        )
    try:
        parts = urlsplit(url)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"{key}: {hide_credentials(url)!r} is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_sane:
        raise ValueError(f"{key}: {hide_credentials(url)!r} must look like http://host:port")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"{key}: must not have a query, a fragment or credentials")


def check_server_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is the address of a server itself, not of an endpoint of it."""
    check_url(key, url)
    _check_root(key, url, _ENDPOINT)


def check_meter_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is the address of a meter or of a ledger, not of a page."""
    check_url(key, url)
    _check_root(key, url, _PAGE)


def _check_root(key: str, url: str, endpoint: re.Pattern[str]) -> None:
    root = server_root(url)
    if found := endpoint.search(root):
        right = server_root(root[: found.start()])
        raise ValueError(
            f"{key}: {hide_credentials(url)!r} ends in an endpoint's path; write {right}"
        )


def check_prometheus_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is the address of a Prometheus, not of a page of it."""
    check_url(key, url)
    bare = url.rstrip("/")
    if found := re.search(r"/(?:api/v1(?:/\w+)?|graph|query|metrics)$", bare):
        raise ValueError(
            f"{key}: {hide_credentials(url)!r} ends in a page's path; write {bare[: found.start()]}"
        )
