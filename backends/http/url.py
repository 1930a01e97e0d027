"""An address that requests are sent to, taken apart once.

Addresses come from the configuration, never from a client.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

_PORTS = {"http": 80, "https": 443}
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files; None: the system's authorities, and no certificate of our own."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """One server: what a connection can be used again for. The same one is the same object."""

    host: str
    port: int
    tls: TlsFiles | None
    """None for plain HTTP."""

    @property
    def authority(self) -> str:
        """Host and port, as logs and the Host header show them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RequestUrl:
    """An origin and what stands behind it; `head` is what each request's head has in common."""

    text: str
    origin: Origin
    head: str

    def __str__(self) -> str:
        return self.text


def hide_credentials(url: str) -> str:
    """Return a URL, or what was meant as one, without what may be a password or a key in it."""
    return re.sub(r"[?#].*", "?…", re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", r"\1…@", url))


def parse_request_url(text: str, tls: TlsFiles | None = None) -> RequestUrl:
    """Take an http(s) address apart; `tls` counts for https. Raises ValueError."""
    parts = urlsplit(text)
    host = parts.hostname
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"{hide_credentials(text)!r}: not an http:// or https:// address")
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"{hide_credentials(text)!r}: must not have credentials or a fragment")
    if not host.isascii():
        host = host.encode("idna").decode()
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError:
        # Its own text has what stands where the port should: half a password, with a slash in it.
        raise ValueError(f"{hide_credentials(text)!r}: the port is no number") from None
    files = (tls or TlsFiles()) if parts.scheme == "https" else None
    origin = _origin(host, port, files)
    path = parts.path or "/"
    target = quote(f"{path}?{parts.query}" if parts.query else path, safe=_PRINTABLE)
    shown = parts.netloc if parts.netloc.isascii() else origin.authority
    # Bytes pass as they come, so that a stream is not held back by a compressor.
    head = f" {target} HTTP/1.1\r\nHost: {shown}\r\nAccept-Encoding: identity\r\n"
    return RequestUrl(text, origin, head)


@lru_cache(maxsize=4096)
def _origin(host: str, port: int, tls: TlsFiles | None) -> Origin:
    return Origin(host, port, tls)
