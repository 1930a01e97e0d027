"""The clients that docs/clients.md has snippets for, installed apart from the project's own."""

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


def clients_python() -> Path:
    """Return the Python of an environment that has the Python clients."""
    recipe = f"1 {sys.version_info[:2]} {PYTHON}"
    return once("clients", recipe, _install_python) / "bin" / "python"


def _install_python(target: Path) -> None:
    install_python(target, "the Python clients", *PYTHON)


def clients_js() -> Path:
    """Return a folder in which Node.js finds the JavaScript clients."""
    return once("clients-js", f"1 {JAVASCRIPT}", _install_javascript)


def _install_javascript(target: Path) -> None:
    install_node(target, "the JavaScript clients", *JAVASCRIPT, manifest=MODULE)
