"""The socket that a server of ours listens on, and what its address means."""

import socket


def open_listening_socket(host: str, port: int, backlog: int | None = None) -> socket.socket:
    """Bind an address and listen; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Whoever asks for every address means IPv4's as well.
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=backlog, dualstack_ipv6=both)


def format_server_url(host: str, port: int) -> str:
    """Return the URL of a server that listens there, without a path."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
