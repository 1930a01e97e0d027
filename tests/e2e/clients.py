"""The clients that docs/clients.md has snippets for, installed apart from the project's own."""

import platform
import sys
from pathlib import Path

from tests.e2e.cache import MODULE, install_node, install_python, once

PYTHON = (
    "anthropic==2.14.0",
    "langchain-openai==1.7.4",
    "openai==3.57.0",
    "openai-agents==0.24.0",
    "pydantic-ai-slim[anthropic,openai]==2.68.0",
)
JAVASCRIPT = ("@ai-sdk/openai@3.0.141", "@anthropic-ai/sdk@1.14.0", "ai@6.0.326", "openai@6.49.0")
LM_EVAL = "lm-eval[api]==0.4.13"
# Without what is optional, which is a gigabyte, but for the build of its database for this machine.
_MACHINE = "arm64" if platform.machine() in {"aarch64", "arm64"} else "x64"
PROMPTFOO = ("promptfoo@0.121.20", f"@libsql/linux-{_MACHINE}-gnu@0.5.29")
_SLIM = ("--omit=optional", "--omit=peer", "--ignore-scripts")


def clients_python() -> Path:
    """Return the Python of an environment that has the Python clients."""
    recipe = f"1 {sys.version_info[:2]} {PYTHON}"
    return once("clients", recipe, _install_python) / "bin" / "python"


def _install_python(target: Path) -> None:
    install_python(target, "the Python clients", *PYTHON)


def lm_eval() -> Path:
    """Return the lm-eval program, in an environment of its own: it brings pandas and datasets."""
    recipe = f"1 {sys.version_info[:2]} {LM_EVAL}"
    return once("lm-eval", recipe, _install_lm_eval) / "bin" / "lm-eval"


def _install_lm_eval(target: Path) -> None:
    install_python(target, "lm-eval", LM_EVAL)


def promptfoo() -> Path:
    """Return the promptfoo program."""
    target = once("promptfoo", f"1 {PROMPTFOO}", _install_promptfoo)
    return target / "node_modules" / ".bin" / "promptfoo"


def _install_promptfoo(target: Path) -> None:
    install_node(target, "promptfoo", *_SLIM, *PROMPTFOO, manifest=MODULE)


def clients_js() -> Path:
    """Return a folder in which Node.js finds the JavaScript clients."""
    return once("clients-js", f"1 {JAVASCRIPT}", _install_javascript)


def _install_javascript(target: Path) -> None:
    install_node(target, "the JavaScript clients", *JAVASCRIPT, manifest=MODULE)
