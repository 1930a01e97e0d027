"""What writes a recalibrated profile, against a stand-in for the Kubernetes API behind TLS."""

import http.server
import json
import ssl
import subprocess
import threading

import pytest

from tests.e2e.helm_tools import CHART, of_ci, one, run_publisher

OLD, NEW = '{"version": 1, "models": {"a": 1}}', '{"version": 1, "models": {"a": "ä"}}'


def test_the_chart_carries_the_script_as_it_is():
    data = one(of_ci("full"), "ConfigMap", "jg-gate-recalibration")["data"]
    assert data == {"publish.py": (CHART / "files" / "publish.py").read_text()}


def self_signed(folder, name):
    """Make key.pem and ca.crt, good for this machine."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / "key.pem", "-out", folder / "ca.crt"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), "kubernetes")


class Api(http.server.ThreadingHTTPServer):
    """Notes what it is asked and answers `status`."""

    def __init__(self, certificate, status):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.seen = status, []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "ca.crt", certificate / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_PATCH(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, self.headers, body))
        text = b'{"kind": "Status", "message": "forbidden: not yours"}'
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def publish(certificate, tmp_path):
    """Run the script as the CronJob does: (exit code, output, what the API saw)."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t0ken")
    (account / "namespace").write_text("llm")

    def run(*, status=200, old=OLD, new=NEW, trust=certificate / "ca.crt", host="127.0.0.1"):
        (account / "ca.crt").write_bytes(trust.read_bytes())
        if old is not None:
            (tmp_path / "learnt.json").write_text(old, "utf-8")
        if new is not None:
            (tmp_path / "new.json").write_text(new, "utf-8")
        api = Api(certificate, status)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        try:
            code, said = run_publisher(
                "jg-learnt",
                tmp_path / "learnt.json",
                tmp_path / "new.json",
                host=host,
                port=api.server_port,
                account=account,
            )
        finally:
            api.shutdown()
            api.server_close()
        return code, said, api.seen

    return run


def test_the_new_profile_is_written_and_the_old_one_kept_beside_it(publish):
    code, said, ((path, headers, body),) = publish()
    assert code == 0, said
    where, query = path.split("?")
    assert where == "/api/v1/namespaces/llm/configmaps/jg-learnt"
    # A manager of its own: helm's server-side apply finds no other's fields in what it has.
    assert query == "fieldManager=joulegate-recalibration&force=true"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["content-type"] == "application/apply-patch+yaml"
    assert body == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "jg-learnt", "namespace": "llm"},
        "data": {"profile.json": NEW, "previous.json": OLD},
    }
    assert "t0ken" not in said


def test_the_first_learnt_profile_has_none_before_it(publish):
    code, said, ((_, _, body),) = publish(old=None)
    assert code == 0, said
    assert body["data"] == {"profile.json": NEW}


@pytest.mark.parametrize(("old", "new"), [(OLD, OLD), (OLD, None), (None, None)])
def test_an_unchanged_profile_is_not_written(publish, old, new):
    """Recalibration writes none where the live one holds."""
    code, said, seen = publish(old=old, new=new)
    assert (code, seen) == (0, [])
    assert "as it was" in said


@pytest.mark.parametrize("status", [401, 403, 409, 500])
def test_a_refusal_ends_the_run_and_says_why(publish, status):
    code, said, seen = publish(status=status)
    assert code == 1
    assert len(seen) == 1
    assert str(status) in said
    assert "not yours" in said
    assert "t0ken" not in said


def test_an_api_that_the_cluster_did_not_sign_gets_no_token(publish, tmp_path):
    other = self_signed(tmp_path / "other", "other") / "ca.crt"
    code, said, seen = publish(trust=other)
    assert (code, seen) == (1, [])
    assert "CERTIFICATE_VERIFY_FAILED" in said


def test_an_api_that_is_not_there_ends_the_run(publish):
    code, said, seen = publish(host="127.0.0.2")
    assert (code, seen) == (1, [])
    assert "127.0.0.2" in said
