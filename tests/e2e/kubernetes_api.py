"""A running Kubernetes API with roles and tokens in force, and nothing else of a cluster."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.e2e.cluster_tools import call, client_tools, control_plane
from tests.e2e.helm_tools import CHART
from tests.e2e.processes import Server, free_port

ADMIN = "admin-of-this-test"
# Objects that Kubernetes 1.20 does not know in the versions that the chart writes.
NEWER = ("gateway-pdb", "gateway-hpa", "model-pdb", "recalibration-cronjob")


@dataclass(frozen=True)
class KubernetesApi:
    """Where it is, how an administrator gets in, and the namespace that is looked at."""

    folder: Path
    port: int
    namespace: str = "default"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def certificate(self) -> Path:
        return self.folder / "apiserver.crt"

    def kubectl(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run kubectl; its answer, whatever it is."""
        return call(client_tools() / "kubectl", *arguments, KUBECONFIG=str(self.kubeconfig))

    def get(self, kind: str, name: str) -> dict | None:
        """Return an object of the chart's namespace, or None."""
        done = self.kubectl(
            "-n", self.namespace, "get", kind, name, "-o", "json", "--show-managed-fields"
        )
        if done.returncode:
            assert "NotFound" in done.stderr, done.stderr
            return None
        return json.loads(done.stdout)

    def ask_access(self, account: str, verb: str, what: str) -> str:
        """Return whether a service account of the namespace may do that: yes or no."""
        who = f"--as=system:serviceaccount:{self.namespace}:{account}"
        return self.kubectl("-n", self.namespace, "auth", "can-i", verb, what, who).stdout.strip()

    def helm(self, program: Path, *arguments: object) -> str:
        """Run a helm in the chart's namespace; returns what it printed."""
        where = ("--namespace", self.namespace, "--kubeconfig", self.kubeconfig)
        done = call(program, *arguments, *where, HOME=str(self.folder))
        assert done.returncode == 0, done.stderr
        return done.stdout


def old_enough(folder: Path) -> Path:
    """Copy the chart without what Kubernetes 1.20 does not know."""
    chart = shutil.copytree(CHART, folder / "chart")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    del about["kubeVersion"]
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    servers = chart / "templates" / "model-statefulset.yaml"
    lines = servers.read_text().splitlines(keepends=True)
    servers.write_text("".join(line for line in lines if "minReadySeconds" not in line))
    for name in NEWER:
        (chart / "templates" / f"{name}.yaml").unlink(missing_ok=True)
    return chart


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[KubernetesApi]:
    """Start etcd and kube-apiserver in `folder`; end them after. Raises MissingToolError."""
    programs = control_plane()
    store, peers, port = free_port(), free_port(), free_port()
    subprocess.run(
        ["openssl", "genrsa", "-out", folder / "accounts.key", "2048"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    etcd = [
        *(str(programs / "etcd"), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
        *(f"--listen-client-urls=http://127.0.0.1:{store}",),
        *(f"--advertise-client-urls=http://127.0.0.1:{store}",),
        *(f"--listen-peer-urls=http://127.0.0.1:{peers}",),
    ]
    api = [
        *(str(programs / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{store}"),
        *("--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={folder}"),
        *("--authorization-mode=RBAC", f"--token-auth-file={folder / 'tokens.csv'}"),
        *("--service-account-issuer=https://kubernetes.default.svc",),
        *(f"--service-account-key-file={folder / 'accounts.key'}",),
        *(f"--service-account-signing-key-file={folder / 'accounts.key'}",),
        *("--service-cluster-ip-range=10.96.0.0/24", "--allow-privileged=false"),
    ]
    servers = [
        Server("etcd", etcd, store, folder / "etcd.log", {}),
        Server("kube-apiserver", api, port, folder / "api.log", {}),
    ]
    try:
        servers[0].start()
        servers[0].wait_until_up(seconds=60)
        servers[1].start()
        running = KubernetesApi(folder, port)
        _write_kubeconfig(running)
        _wait_until_ready(running, servers[1])
        yield running
    finally:
        for server in reversed(servers):
            server.close()


def _write_kubeconfig(api: KubernetesApi) -> None:
    cluster = {
        "server": f"https://127.0.0.1:{api.port}",
        "certificate-authority": str(api.certificate),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": ADMIN}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        "current-context": "here",
    }
    api.kubeconfig.write_text(yaml.safe_dump(config))
    api.kubeconfig.chmod(0o600)


def _wait_until_ready(api: KubernetesApi, server: Server) -> None:
    deadline = time.monotonic() + 120
    while api.kubectl("get", "--raw", "/readyz").stdout != "ok":
        if time.monotonic() > deadline or server.process.poll() is not None:
            raise RuntimeError(f"kube-apiserver is not ready\n{server.tail()}")
        time.sleep(0.2)
