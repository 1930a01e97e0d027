"""The `tls` keys: where they count, and what is said of files that cannot be used."""

import random
import shutil
import subprocess

import pytest

from backends.client import BackendClient
from gateway import config as configs
from gateway.service import fleet
from gateway.structured import ConfigError

YAML = """
models:
  - name: phi-3-mini
    context: 4096
    backends:
      - {url: "https://a:8000", meter: "https://m:9464", tls: {ca_file: own.pem}}
      - {url: "https://b:8000"}
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with a certificate under several names, and its key apart."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ),
            *("-nodes", "-days", "2", "-subj", "/CN=a", "-keyout", "key.pem", "-out", "ca.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    for name in ("own.pem", "meter.pem"):
        shutil.copy(folder / "ca.pem", folder / name)
    return folder


def load(folder, more=""):
    file = folder / "gateway.yaml"
    file.write_text(YAML + more)
    return configs.load_config(file)


def test_which_files_count_where(certificates):
    both = "tls: {ca_file: ca.pem, cert_file: ca.pem, key_file: key.pem}\n"
    config = load(certificates, both + "meter_tls: {ca_file: meter.pem}\n")
    made = fleet.build_deployments(config, random.Random(1))
    own, whole = (backend.build_url("/").origin.tls for backend in made[0].backends)
    assert own.ca_file == str(certificates / "own.pem")
    assert own.cert_file is None
    assert whole.cert_file == str(certificates / "ca.pem")
    (link,) = fleet.connect_meters(config, made, BackendClient(connect_seconds=1))
    assert link._url.origin.tls.ca_file == str(certificates / "meter.pem")


def test_meters_use_the_backends_files_where_they_have_none(certificates):
    config = load(certificates, "tls: {ca_file: ca.pem}\n")
    made = fleet.build_deployments(config, random.Random(1))
    (link,) = fleet.connect_meters(config, made, BackendClient(connect_seconds=1))
    assert link._url.origin.tls.ca_file == str(certificates / "ca.pem")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("tls: {ca_file: missing.pem}\n", r"tls: missing\.pem: No such file"),
        ("meter_tls: {ca_file: key.pem}\n", r"meter_tls: key\.pem: "),
        ("tls: {cert_file: ca.pem}\n", r"tls: ca\.pem: "),
        ("tls: {key_file: key.pem}\n", "cert_file: is missing"),
        ("tls: {ca: ca.pem}\n", "unknown key 'ca'"),
    ],
)
def test_files_that_cannot_be_used_are_said_at_once(certificates, more, said):
    with pytest.raises(ConfigError, match=said):
        load(certificates, more)
