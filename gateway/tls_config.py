"""The `tls` keys of a config: PEM files for https addresses, checked when the config is loaded."""

from pathlib import Path

from msgspec import Struct

from backends.http.tls import make_tls_context
from backends.http.url import TlsFiles
from gateway.bounded_file import check_regular_file
from gateway.structured import ConfigError


class TlsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS towards https addresses: PEM files of the authorities to trust, and of our certificate.

    Without `ca_file` the system's authorities are trusted. Without `key_file` the certificate's
    file holds its key too.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("cert_file: is missing, and key_file is given")

    @property
    def files(self) -> TlsFiles:
        """The paths, for a client."""
        return TlsFiles(self.ca_file, self.cert_file, self.key_file)


def load_tls(given: TlsConfig | None, folder: Path, key: str) -> TlsConfig | None:
    """Return it with paths that start at `folder`, its files tried. Raises ConfigError."""
    if given is None:
        return None
    paths = (given.ca_file, given.cert_file, given.key_file)
    found = TlsConfig(*(path and str(folder / path) for path in paths))
    try:
        for file in filter(None, (found.ca_file, found.cert_file, found.key_file)):
            check_regular_file(Path(file))
        make_tls_context(found.files)
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{key}: {', '.join(filter(None, paths))}: {why}") from None
    return found
