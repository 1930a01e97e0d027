"""Where the end-to-end tests keep what is slow to make, and how it is made only once."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("JOULEGATE_E2E_CACHE") or Path.home() / ".cache" / "joulegate-e2e")

MODULE = '{"private": true, "type": "module"}'
"""A package.json whose folder's scripts may `import`."""


def say(text):
    print(f"[e2e] {text}", file=sys.stderr, flush=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name`; two runs on one machine then make a thing once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return CACHE/name, made by `make` unless it already was with this same `recipe`.

    The stamp is written last, so that what an interrupted run left is made anew.
    """
    target, stamp = CACHE / name, CACHE / f"{name}.stamp"
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    with locked(name):
        if target.exists() and stamp.exists() and stamp.read_text() == digest:
            return target
        stamp.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        started = time.monotonic()
        say(f"making {target}")
        make(target)
        stamp.write_text(digest)
        say(f"made {target} in {time.monotonic() - started:.0f} s")
    return target


def install_python(target: Path, step: str, *requirements: str) -> None:
    """Make a virtual environment with these packages."""
    run("virtual environment", sys.executable, "-m", "venv", target)
    pip = (target / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install")
    run(step, *pip, "--progress-bar", "off", *requirements)


def install_node(target: Path, step: str, *packages: str, manifest: str) -> None:
    """Make a folder in which Node.js finds these packages; options of npm's may be among them."""
    target.mkdir()
    (target / "package.json").write_text(manifest)
    run(step, "npm", "install", "--no-audit", "--no-fund", "--prefix", target, *packages)


def run(step: str, *argv: object, **env: str) -> None:
    """Run a command, saying what it is for; raise with its last output when it fails."""
    started = time.monotonic()
    done = subprocess.run(
        [str(arg) for arg in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **env},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{step} failed with {done.returncode}:\n{done.stdout[-4000:]}")
    say(f"  {step}: {time.monotonic() - started:.0f} s")
