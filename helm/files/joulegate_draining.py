"""How a vLLM server leaves without breaking a stream: `python3 joulegate_draining.py`, its preStop.

vLLM loads the class below by `--middleware`. Once the hook has left its mark, new requests are
answered 503 with `Retry-After`, so that gateways ask another server; the hook waits until what runs
has ended, and only then does the server get SIGTERM. vLLM's own `--shutdown-timeout` answers what
comes meanwhile with 200 and nothing in it, which no gateway can tell from a short answer.
"""

# ruff: noqa: INP001, S310 - a script; its address is its own

import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

MARK = Path(os.environ.get("JOULEGATE_DRAIN_MARK", "/tmp/joulegate-draining"))  # noqa: S108
HEALTH_URL = os.environ.get("JOULEGATE_DRAIN_URL", "http://localhost:8000/health")
RETRY_AFTER_SECONDS = 5
PASSED = ("/health", "/metrics", "/load", "/ping", "/version")
CALM_LOOKS = 4
LOOK_SECONDS = 0.5

REFUSAL = json.dumps(
    {
        "error": {
            "message": "the server is shutting down",
            "type": "ServiceUnavailableError",
            "param": None,
            "code": 503,
        }
    }
).encode()


class RefuseWhileDraining:
    """ASGI middleware: counts what runs, and lets nothing in while the mark is there."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.running = 0
        # One from before this process: a container that was restarted is no longer leaving.
        MARK.unlink(missing_ok=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in PASSED:
            if scope["path"] == "/health" and is_leaving():
                await answer(send, 200, str(self.running).encode(), [])
            else:
                await self.app(scope, receive, send)
        elif is_leaving():
            headers = [
                (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
                (b"content-type", b"application/json"),
                (b"connection", b"close"),
            ]
            await answer(send, 503, REFUSAL, headers)
        else:
            self.running += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.running -= 1


def is_leaving() -> bool:
    """Whether the hook has left its mark."""
    return MARK.exists()


async def answer(send: Any, status: int, body: bytes, headers: list) -> None:
    """Send a whole response."""
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wait_until_idle() -> None:
    """Return once nothing has run for two seconds or the server is gone; Kubernetes bounds it."""
    calm = 0
    while calm < CALM_LOOKS:
        time.sleep(LOOK_SECONDS)
        try:
            with urllib.request.urlopen(HEALTH_URL, timeout=5) as response:
                running = response.read()
        except OSError as error:
            if not isinstance(getattr(error, "reason", error), TimeoutError):
                return
            running = b""
        calm = calm + 1 if running == b"0" else 0


if __name__ == "__main__":
    MARK.touch()
    wait_until_idle()
    sys.exit(0)
