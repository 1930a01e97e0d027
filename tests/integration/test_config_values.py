"""What the environment gives: put in or refused, never sent to a backend as it is written."""

import os

import aiohttp
import pytest

from tests.integration.process import joulegate

HELLO = {"model": "phi-3-mini", "messages": [{"role": "user", "content": "Hello"}]}


def write_config(folder, url, key):
    path = folder / "gateway.yaml"
    path.write_text(
        "models:\n  - name: phi-3-mini\n    context: 4096\n"
        f'    backends: [{{url: "{url}", api_key: "{key}"}}]\n'
    )
    return path


async def ask_once(config, environ):
    """Start a gateway, ask it once, and return its process."""
    env = os.environ | environ
    async with joulegate("serve", "--config", config, "--port", 0, env=env) as process:
        found = await process.says(r"running on (http://127\.0\.0\.1:\d+)")
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{found[1]}/v1/chat/completions", json=HELLO) as response,
        ):
            assert response.status == 200, await response.read()
        return process


@pytest.mark.parametrize(
    ("key", "environ", "sent"),
    [
        ("${VLLM_KEY_UNSET:-abc}", {}, "Bearer abc"),
        ("${VLLM_KEY}", {"VLLM_KEY": "real\n"}, "Bearer real"),
        ("${VLLM_KEY}", {"VLLM_KEY_FILE": "key"}, "Bearer of a file"),
        ("a$$b", {}, "Bearer a$b"),
    ],
)
async def test_a_backend_is_sent_the_variables_value(world, tmp_path, key, environ, sent):
    backend = await world.recorder()
    (tmp_path / "key").write_text("of a file\n")
    if "VLLM_KEY_FILE" in environ:
        environ = {"VLLM_KEY_FILE": str(tmp_path / "key")}
    await ask_once(write_config(tmp_path, backend.url, key), environ)
    assert backend.seen[-1].headers["authorization"] == sent


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("$VLLM_KEY", r"api_key: \$VLLM_KEY is not put in: write \$\{VLLM_KEY\}"),
        ("${VLLM_KEY_UNSET}", r"api_key: the environment variable VLLM_KEY_UNSET is not set"),
        ("os.environ/VLLM_KEY", r"api_key: 'os.environ/VLLM_KEY' is not put in"),
    ],
)
async def test_what_only_looks_substituted_is_refused_at_the_start(tmp_path, key, said):
    config = write_config(tmp_path, "http://127.0.0.1:1", key)
    env = os.environ | {"VLLM_KEY": "real"}
    async with joulegate("serve", "--config", config, "--port", 0, env=env) as process:
        assert await process.ended() == 2
    assert process.said(said), process.lines
    assert not process.said("Traceback")


async def test_anothers_folder_of_shared_metrics_is_left_alone(world, tmp_path):
    backend = await world.recorder()
    config = write_config(tmp_path, backend.url, "x")
    # vLLM's own images set it; prometheus_client fails at its import where it is not there.
    process = await ask_once(config, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "none")})
    assert not process.said("Traceback")
    (tmp_path / "theirs").mkdir()
    await ask_once(config, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "theirs")})
    assert not list((tmp_path / "theirs").iterdir())
