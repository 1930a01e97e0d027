"""The clients of docs/clients.md, with real vLLM behind the gateway."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.clients import clients_js, clients_python, promptfoo

HERE = Path(__file__).parent
WORDS = ["unary", "stream"]
FOUND = {
    "openai": [*WORDS, "tool", "after", "structured"],
    "anthropic": [*WORDS, "tool", "after", "tokens"],
    "langchain": [*WORDS, "tool", "structured"],
    "pydantic-ai": ["unary", "tool", "structured"],
    "openai-agents": ["stream", "tool", "structured"],
}
"""What each Python client is asked for: sdk_clients.py has the asking."""
PROMPTFOO = """
prompts: ["Say {{word}}."]
providers:
  - id: openai:responses:smollm2-135m
    config: &gateway {apiBaseUrl: "URL/v1", apiKey: unused, max_tokens: 16}
  - {id: "openai:chat:smollm2-135m", config: *gateway}
tests:
  - {vars: {word: hello}, assert: [{type: javascript, value: "output.length > 0"}]}
"""


def run(*command, env=None):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=300, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:] or done.stdout[-3000:]
    return done.stdout


@pytest.mark.parametrize("client", FOUND)
def test_python(gateway, client):
    told = run(clients_python(), HERE / "sdk_clients.py", gateway.url, client)
    found = json.loads(told.splitlines()[-1])
    assert sorted(found) == sorted(FOUND[client])
    assert all(text.strip() for text in found.values()), found
    states = {found[kind] for kind in ("tool", "structured") if kind in found}
    assert states <= {"on", "off"}


def test_javascript(gateway, tmp_path):
    # Node.js looks for packages from the script's own folder upwards.
    script = clients_js() / f"{tmp_path.name}.mjs"
    script.write_bytes((HERE / "sdk_clients.mjs").read_bytes())
    found = json.loads(run("node", script, gateway.url).splitlines()[-1])
    assert len(found) == 8
    assert all(text.strip() for text in found.values()), found
    assert found["aiObject"] in {"on", "off"}


def test_promptfoo(gateway, tmp_path):
    config = tmp_path / "promptfooconfig.yaml"
    config.write_text(PROMPTFOO.replace("URL", gateway.url))
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    env = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(tmp_path)} | quiet
    run(promptfoo(), "eval", "--no-cache", "--config", config, env=env)
