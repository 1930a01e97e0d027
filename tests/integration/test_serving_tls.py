"""Clients over TLS: the certificate is read anew, the operators' port stays plain."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess

import aiohttp
import pytest
import yaml

from gateway.config import ConfigError, load_config
from tests.integration.harness import CHAT, STREAM, until
from tests.integration.process import joulegate


class Authority:
    """A CA in a folder, made by openssl, and certificates of it."""

    def __init__(self, folder):
        self.folder = folder
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._new = new
        self._openssl(
            *new, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"
        )
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, name, subject):
        """Write NAME.pem and NAME.key."""
        made = ("-keyout", f"{name}.key.new", "-out", f"{name}.csr")
        self._openssl(*self._new, "-subj", f"/CN={subject}", *made)
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
        out = ("-in", f"{name}.csr", "-out", f"{name}.pem.new")
        self._openssl("x509", "-req", "-days", "2", *signed, *out)
        for kind in ("key", "pem"):
            (self.folder / f"{name}.{kind}.new").rename(self.folder / f"{name}.{kind}")

    def trust(self, client=None):
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if client:
            context.load_cert_chain(self.folder / f"{client}.pem", self.folder / f"{client}.key")
        return context


@pytest.fixture
def authority(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    made = Authority(tmp_path)
    made.issue("server", "first")
    return made


@contextlib.asynccontextmanager
async def serving(authority, backend, *arguments, **tls):
    """`joulegate serve` with TLS; yields its port, the operators' and the process."""
    path = authority.folder / "gateway.yaml"
    tree = {
        "models": [{"name": "phi-3-mini", "context": 4096, "backends": [{"url": backend.url}]}],
        "serving_tls": {"cert_file": "server.pem", "key_file": "server.key"} | tls,
        "admin": {"port": 0},
    }
    path.write_text(yaml.safe_dump(tree))
    async with joulegate("serve", "--config", path, "--port", 0, *arguments) as process:
        admin = (await process.says(r"operators on http://127\.0\.0\.1:(\d+)"))[1]
        port = (await process.says(r"running on https://127\.0\.0\.1:(\d+)"))[1]

        async def ready():
            with contextlib.suppress(OSError, aiohttp.ClientError):
                return await shown_subject(port, authority.trust("server"))

        await until(ready, "the first handshake", seconds=60)
        yield port, admin, process


async def shown_subject(port, context):
    """Who the certificate of a new connection is of."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("peercert")
    writer.close()
    return dict(pair for (pair,) in shown["subject"])["commonName"]


async def test_requests_and_a_new_certificate_in_every_worker(world, authority):
    simulator = await world.simulator()
    trusted = authority.trust()
    async with serving(authority, simulator, "--workers", 2) as (port, admin, process):
        url = f"https://127.0.0.1:{port}/v1/chat/completions"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as http:
            for body in (CHAT, STREAM):
                async with http.post(url, json=body | {"max_tokens": 20}) as response:
                    assert response.status == 200
                    text = await response.read()
            assert text.endswith(b"data: [DONE]\n\n")
            async with http.get(f"http://127.0.0.1:{admin}/metrics") as response:
                assert response.status == 200
        assert await shown_subject(port, trusted) == "first"

        # half of a pair is no certificate: the one before stays
        good = (authority.folder / "server.key").read_bytes()
        (authority.folder / "server.key").write_text("no key")
        await process.says("certificate refused")
        assert await shown_subject(port, trusted) == "first"
        (authority.folder / "server.key").write_bytes(good)
        authority.issue("server", "second")

        def adopted():
            return sum("server.pem is in force" in line for line in process.lines) >= 2

        await until(adopted, "both workers")

        async def always_second():
            return {await shown_subject(port, trusted) for _ in range(6)} == {"second"}

        await until(always_second, "the new certificate")
        # plain HTTP gets nothing
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200" not in await reader.read()
        writer.close()
    assert not process.said("Traceback")


async def test_only_clients_with_a_certificate(world, authority):
    simulator = await world.simulator()
    async with serving(authority, simulator, client_ca_file="ca.pem") as (port, _, process):
        for client, well in (("server", True), (None, False)):
            connector = aiohttp.TCPConnector(ssl=authority.trust(client))
            async with aiohttp.ClientSession(connector=connector) as http:
                try:
                    async with http.get(f"https://127.0.0.1:{port}/health") as response:
                        answered = response.status == 200
                except aiohttp.ClientError:
                    answered = False
            assert answered is well
    assert not process.said("Traceback")


def test_a_certificate_that_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "gateway.yaml"
    models = [{"name": "a", "context": 9, "backends": [{"url": "http://b:1"}]}]
    tls = {"cert_file": "none.pem", "key_file": "none.key"}
    path.write_text(yaml.safe_dump({"models": models, "serving_tls": tls}))
    with pytest.raises(ConfigError, match=r"serving_tls: .*none\.pem"):
        load_config(path)
