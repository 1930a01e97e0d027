"""The client to backends over TLS, under both event loops."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess

import pytest

from backends.client import BackendClient
from backends.errors import BackendError, BackendUnreachable
from backends.http.url import TlsFiles, parse_request_url
from tests.integration.backend_talks import CHUNKED, ask, echoing, on_both_loops
from tests.integration.scripted import Raw, request


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A CA with a server's certificate and a client's, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        openssl("x509", "-req", "-days", "2", *signed, "-in", f"{name}.csr", "-out", f"{name}.pem")
    return folder


@contextlib.asynccontextmanager
async def secure(authority, talk, *, wants_certificate=False):
    """A TLS server, maybe one that wants to see a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.load_verify_locations(authority / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_NONE
    async with Raw(talk, ssl=context) as server, BackendClient(connect_seconds=5.0) as client:
        yield client, server


def files(authority, *, certificate=False):
    pair = [str(authority / "client.pem"), str(authority / "client.key")] if certificate else []
    return TlsFiles(str(authority / "ca.pem"), *pair)


@pytest.mark.parametrize("certificate", [False, True])
@on_both_loops
async def test_tls(authority, certificate):
    async with secure(authority, echoing(b"hi"), wants_certificate=certificate) as (client, server):
        url = parse_request_url(server.url, files(authority, certificate=certificate))
        for _ in range(5):
            assert await ask(client, url, b"x" * (1 << 20)) == (200, b"hi")
        assert server.connections == 1


@on_both_loops
async def test_a_certificate_that_nobody_vouches_for(authority):
    async with secure(authority, echoing(b"hi")) as (client, server):
        with pytest.raises(BackendUnreachable, match=r"(?i)certificate"):
            await ask(client, parse_request_url(server.url))
        assert client.busy == 0


@on_both_loops
async def test_a_server_that_wants_a_certificate(authority):
    async with secure(authority, echoing(b"hi"), wants_certificate=True) as (client, server):
        with pytest.raises(BackendError):
            await ask(client, parse_request_url(server.url, files(authority)))
        assert client.busy == 0


@on_both_loops
async def test_leaving_a_tls_answer_closes_it(authority):
    left = asyncio.Event()

    async def talk(reader, writer):
        await request(reader)
        writer.write(CHUNKED + b"2\r\nhi\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()

    async with secure(authority, talk) as (client, server):
        answer = await client.post(parse_request_url(server.url, files(authority)), b"{}", {})
        assert await answer.read_chunk() == b"hi"
        answer.close()
        await left.wait()
