"""A config that commands are given."""

import pytest

CONFIG = """
models:
  - name: phi-3-mini
    context: 4096
    backends: [{url: "http://phi3-0:8000", api_key: "${PHI3_KEY}"}]
  - name: mistral-7b
    context: 32768
    backends: [{url: "http://mistral-0:8000"}]
presets: {eco: {weights: {energy: 1}}}
"""


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return str(path)
