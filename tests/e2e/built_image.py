"""The image as buildah builds it, on a base that mmdebstrap makes: no container engine is needed.

The base is Debian's Python in place of Docker Hub's. Needs root, and Debian's `buildah` and
`mmdebstrap`; `python -m tests.e2e.built_image` builds it by hand.
"""

import configparser
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.e2e import image
from tests.e2e.cache import CACHE, once, run, say
from tests.e2e.cluster_tools import MissingToolError

PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
BASE, TAG = "localhost/base:1", "localhost/joulegate:1"
CERTIFICATES = Path("/etc/ssl/certs")


@dataclass(frozen=True)
class BuiltImage:
    """A root file system, and what the image says of it."""

    root: Path
    settings: dict
    """Docker's: User, Env, Entrypoint, Cmd, Healthcheck."""

    def env(self) -> dict[str, str]:
        """Return its variables."""
        return dict(pair.split("=", 1) for pair in self.settings["Env"])

    def start_command(self) -> list[str]:
        """Return ENTRYPOINT and CMD."""
        return [*self.settings["Entrypoint"], *self.settings["Cmd"]]


class BuiltContainer(image.Container):
    """A server in the built image, on a root that nothing may be written to."""

    def contain(self, root: Path, argv: list[str], configs: Path, **environ: str) -> list[str]:
        """Return the command that runs `argv` in the image."""
        del root
        built = build()
        return image.contained(
            built.root,
            argv,
            user=built.settings["User"],
            binds={"/etc/joulegate": configs},
            environ={**built.env(), **environ},
            whole=True,
        )


def buildah(step: str, *arguments: object) -> str:
    """Run buildah on this cache's storage; return what it printed. Raises RuntimeError."""
    store = CACHE / "buildah"
    done = subprocess.run(
        [
            *("buildah", "--root", store / "root", "--runroot", store / "run"),
            *("--storage-driver", "vfs", *map(str, arguments)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{step} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


@cache
def build() -> BuiltImage:
    """Return the image, built anew where anything that goes into it has changed.

    Raises MissingToolError.
    """
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        raise MissingToolError(f"needs root and Debian's {' and '.join(missing) or 'buildah'}")
    files = {**image.context(), "Dockerfile": image.ROOT / "Dockerfile"}
    recipe = f"1 {PACKAGES} " + " ".join(
        f"{name} {path.read_bytes()!r}" for name, path in files.items()
    )
    folder = once("built-image", recipe, _build)
    found = json.loads((folder / "image.json").read_text())
    return BuiltImage(Path(found["root"]), found["settings"])


def _build(target: Path) -> None:
    target.mkdir()
    base = once("base-image", f"1 {PACKAGES}", _make_base) / "rootfs.tar"
    shutil.rmtree(CACHE / "buildah", ignore_errors=True)
    started = buildah("the base", "from", "scratch")
    buildah("the base", "add", started, base, "/")
    buildah("the base", "commit", "--rm", started, BASE)
    dockerfile = target / "Dockerfile"
    # This buildah knows no --network of a RUN; that step's own test is tests/e2e/image.py's.
    text = (image.ROOT / "Dockerfile").read_text()
    dockerfile.write_text(re.sub(r"--network=none\s+\\?\n?\s*", "", text))
    _write_pip_settings(target / "pip.conf")
    binds = [CERTIFICATES, *(path for path in Path("/opt").iterdir() if path.is_dir())]
    buildah(
        "the image",
        *("build", "--isolation", "chroot", "--format", "docker", "--file", dockerfile),
        *("--build-arg", f"BASE={BASE}", "--secret", f"id=pip.conf,src={target / 'pip.conf'}"),
        *(f"--volume={path}:{path}:ro" for path in binds),
        *("--ignorefile", image.ROOT / ".dockerignore", "--tag", TAG, image.ROOT),
    )
    settings = json.loads(buildah("its settings", "inspect", "--type", "image", TAG))
    started = buildah("its files", "from", "--pull-never", TAG)
    root = buildah("its files", "mount", started)
    found = {"root": root, "settings": settings["Docker"]["config"]}
    (target / "image.json").write_text(json.dumps(found))


def _make_base(target: Path) -> None:
    target.mkdir()
    suite = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    options = ("--quiet", "--variant=minbase", f"--include={PACKAGES}")
    try:
        run("the base", "mmdebstrap", *options, suite[1], target / "rootfs.tar")
    except RuntimeError as error:
        raise MissingToolError(f"Debian's packages cannot be fetched: {error}") from error


def _write_pip_settings(path: Path) -> None:
    """Write the machine's own ways to packages, as the build's secret."""
    settings = configparser.ConfigParser()
    settings.read(["/etc/pip.conf", Path.home() / ".config" / "pip" / "pip.conf"])
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in os.environ.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            settings["global"][name.removeprefix("PIP_").lower().replace("_", "-")] = value
    with path.open("w") as file:
        settings.write(file)


if __name__ == "__main__":
    say(str(build().root))
