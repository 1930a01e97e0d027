"""Every snippet of docs/clients.md and the README's of SDKs, as they stand, against the demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.clients import clients_js, clients_python, promptfoo
from tests.e2e.fleet import running
from tests.e2e.processes import Server, free_port

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
SECTION = (ROOT / "README.md").read_text("utf-8").split("\n## Use an OpenAI SDK\n")[1]
SECTION = SECTION.split("\n## ")[0]
SHOWN = re.compile("http://(?:localhost|127.0.0.1):8080")
_OF_PAGE, _OF_SECTION = (
    re.compile(rf"^```({kinds})\n(.*?)^```", re.DOTALL | re.MULTILINE)
    for kinds in ("python|javascript|yaml", "python|javascript|sh")
)
SNIPPETS = [*_OF_PAGE.findall(PAGE), *_OF_SECTION.findall(SECTION)]


def name_of(snippet):
    if snippet[0] in {"yaml", "sh"}:
        return {"yaml": "promptfoo", "sh": "curl"}[snippet[0]]
    imported = re.findall(r'^from (\w+)|^import .* from "(.*)"', snippet[1], re.MULTILINE)
    return next(name for pair in imported for name in pair if name and name != "pydantic")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    port = free_port()
    joulegate = Path(sys.executable).with_name("joulegate")
    argv = [str(joulegate), "demo", "--port", str(port)]
    server = Server("demo", argv, port, tmp_path_factory.mktemp("demo") / "log", {})
    with running([server]):
        server.wait_until_up("/ready", 60)
        yield server


def test_both_pages_have_snippets_in_both_languages():
    assert {kind for kind, _ in _OF_PAGE.findall(PAGE)} == {"python", "javascript", "yaml"}
    assert {kind for kind, _ in _OF_SECTION.findall(SECTION)} == {"python", "javascript", "sh"}
    assert all(SHOWN.search(code) for _, code in SNIPPETS)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_a_snippet_runs(demo, snippet, tmp_path):
    language, code = snippet
    code = SHOWN.sub(demo.url, code)
    if language == "python":
        command, script = [str(clients_python())], tmp_path / "snippet.py"
    elif language == "yaml":
        command = [str(promptfoo()), "eval", "--no-cache", "--config"]
        script = tmp_path / "promptfooconfig.yaml"
    elif language == "sh":
        command, script = ["bash", "-e"], tmp_path / "snippet.sh"
        code = code.replace("curl ", "curl --fail-with-body -sS ")
    else:
        # Node.js looks for packages from the script's own folder upwards.
        command, script = ["node"], clients_js() / f"{tmp_path.name}.mjs"
    script.write_text(code)
    keys = {"OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"}
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **{key: value for key, value in os.environ.items() if key not in keys},
            "PROMPTFOO_CONFIG_DIR": str(tmp_path / "promptfoo"),
            "PROMPTFOO_DISABLE_TELEMETRY": "1",
            "PROMPTFOO_DISABLE_UPDATE": "1",
        },
    )
    assert done.returncode == 0, done.stderr or done.stdout
    assert done.stdout.strip()
