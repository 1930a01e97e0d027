"""TLS of a connection: which authorities are trusted, and the certificate shown to a server."""

import ssl

from backends.http.url import TlsFiles


def make_tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files. Raises OSError; ssl.SSLError, which is one, where they are no PEM."""
    context = ssl.create_default_context(cafile=files.ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if files.cert_file is not None:
        # A key with a passphrase is refused: a gateway has nobody to ask for it.
        context.load_cert_chain(files.cert_file, files.key_file, password=_refuse_passphrase)
    return context


def _refuse_passphrase() -> str:
    raise ssl.SSLError("the key wants a passphrase")
