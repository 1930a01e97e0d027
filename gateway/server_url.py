"""The addresses of servers in a config: what is a root, and what only looks like one."""

import re
from urllib.parse import urlsplit

_ENDPOINT = re.compile(
    r"(?:/v[12])?/(?:chat/completions|completions|metrics|health|ping|version|docs|openapi\.json"
    r"|tokenize|detokenize)/?$"
    r"|/v[12]/(?:embeddings|models(?:/.*)?|responses|messages(?:/count_tokens)?|rerank|score"
    r"|pooling|classify|audio/(?:transcriptions|translations)|chat)/?$"
)
"""The paths of servers' endpoints; words that may as well be a proxy's prefix only behind /v1."""


def server_root(url: str) -> str:
    """Return a server's root without a trailing slash or /v1, whichever way it was written."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def check_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is a plain http(s) address."""
    if url != url.strip() or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError(f"{key}: {url!r} is not a URL: there is white space in it")
    try:
        parts = urlsplit(url)
        port_is_sane = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"{key}: {url!r} is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_sane:
        raise ValueError(f"{key}: {url!r} must look like http://host:port")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"{key}: must not have a query, a fragment or credentials")


def check_server_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is the address of a server itself, not of an endpoint of it."""
    check_url(key, url)
    root = server_root(url)
    if found := _ENDPOINT.search(root):
        right = server_root(root[: found.start()])
        raise ValueError(f"{key}: {url!r} ends in an endpoint's path; write {right}")


def check_prometheus_url(key: str, url: str) -> None:
    """Raise ValueError unless `url` is the address of a Prometheus, not of a page of it."""
    check_url(key, url)
    bare = url.rstrip("/")
    if found := re.search(r"/(?:api/v1(?:/\w+)?|graph|query|metrics)$", bare):
        raise ValueError(f"{key}: {url!r} ends in a page's path; write {bare[: found.start()]}")
