"""TLS for clients: the certificate that the gateway shows, read anew when its files change.

Rules: new connections get the new certificate, those that there are keep theirs; files that do not
fit together (one of two has been replaced) are refused, and the certificate that was good stays.
Whoever is not through the handshake in `HANDSHAKE_SECONDS` is dropped.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from backends.periodic import run_periodically
from gateway.changed_files import ChangedFiles
from gateway.daemon_thread import run_in_daemon_thread
from gateway.surfaces_config import ServingTlsConfig

_log = logging.getLogger("joulegate")

HANDSHAKE_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 1.0
_made: Final[dict[int, "ServingCertificate"]] = {}
"""By the context that was made of it: uvicorn passes that on, and nothing else."""


class ServingCertificate(NamedTuple):
    """What uvicorn makes its context of, in each worker anew."""

    config: ServingTlsConfig

    def __call__(self, *_: Any) -> ssl.SSLContext:
        """Return the first context, as uvicorn's `ssl_context_factory`. Raises OSError."""
        context = self.config.make_context()
        _made[id(context)] = self
        return context

    async def watch_files(self, adopt: Callable[[ssl.SSLContext], None]) -> None:
        """Hand a new context to `adopt` whenever the files have changed, until cancelled."""
        files = ChangedFiles(*self.config.list_files())

        async def look() -> None:
            if not await files.look():
                return
            try:
                adopt(await run_in_daemon_thread(self.config.make_context))
            except (OSError, ValueError) as error:
                _log.error("certificate refused, the one before stays: %s", error)
            else:
                _log.info("certificate %s is in force", self.config.cert_file)

        await run_periodically(look, _POLL_SECONDS, "taking a certificate into force")


def start_watching(
    context: ssl.SSLContext, adopt: Callable[[ssl.SSLContext], None]
) -> asyncio.Task[None] | None:
    """Watch the files that a context was made of; None where it was not made here."""
    certificate = _made.get(id(context))
    if certificate is None:
        return None
    return asyncio.get_running_loop().create_task(certificate.watch_files(adopt))
