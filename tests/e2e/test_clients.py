"""Every snippet of docs/clients.md, run as it stands there against `joulegate demo`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.clients import clients_js, clients_python, promptfoo
from tests.e2e.fleet import running
from tests.e2e.processes import Server, free_port

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
SHOWN = "http://localhost:8080"
_BLOCK = r"^```(python|javascript|yaml)\n(.*?)^```"
SNIPPETS = re.findall(_BLOCK, PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def name_of(snippet):
    if snippet[0] == "yaml":
        return "promptfoo"
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


def test_the_page_has_snippets_in_both_languages():
    assert {language for language, _ in SNIPPETS} == {"python", "javascript", "yaml"}
    assert all(SHOWN in code for _, code in SNIPPETS)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=name_of)
def test_a_snippet_runs(demo, snippet, tmp_path):
    language, code = snippet
    code = code.replace(SHOWN, demo.url)
    if language == "python":
        command, script = [str(clients_python())], tmp_path / "snippet.py"
    elif language == "yaml":
        command = [str(promptfoo()), "eval", "--no-cache", "--config"]
        script = tmp_path / "promptfooconfig.yaml"
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
