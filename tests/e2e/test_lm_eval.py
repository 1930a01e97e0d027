"""lm-eval's log-likelihoods with its remote tokeniser, through the gateway: simulated and real."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.e2e.clients import lm_eval
from tests.e2e.fleet import SMOLLM2, gateway_server, running
from tests.integration.harness import World, model

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")
SHOWN = re.search(r"^```sh\n(lm-eval .*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
TASK = """
task: tiny
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
"""
ASKED = [
    {"question": "The capital of France is", "choices": [" Paris", " cheese"], "answer": 0},
    {"question": "Two and two are", "choices": [" seventeen hundred", " four"], "answer": 1},
]


@pytest.fixture
def task(tmp_path):
    """The folder of a task that needs no network."""
    data = tmp_path / "tiny.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in ASKED))
    (tmp_path / "tiny.yaml").write_text(TASK.replace("FILE", str(data)))
    return tmp_path


def evaluate(url, name, task):
    """Run what the page shows, of this task and model; return its results."""
    shown = SHOWN.replace("http://localhost:8080", url).replace("phi-3-mini", name)
    shown = shown.replace("arc_easy", "tiny").replace("\\\n", "")
    _, *command = shlex.split(shown)
    command += ["--include_path", task, "--output_path", task / "out"]
    done = subprocess.run(
        [str(word) for word in (lm_eval(), *command)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (task / "out").rglob("results_*.json")
    return json.loads(found.read_text())["results"]["tiny"]


async def test_against_the_simulator_where_several_models_are(task):
    capabilities = ("chat", "completions", "logprobs")
    async with contextlib.AsyncExitStack() as stack:
        world = World(stack)
        small, large = await world.simulator(), await world.simulator(served="mistral")
        gate = await world.gate(
            model("phi-3-mini", small, capabilities=capabilities),
            model("mistral-7b", large, served_name="mistral", capabilities=capabilities),
            default_model="phi-3-mini",
        )
        found = await asyncio.to_thread(evaluate, gate.url, "phi-3-mini", task)
        assert 0 <= found["acc,none"] <= 1
        # Two questions with two answers each, what each was tokenised with, and the tokeniser.
        assert await gate.metric("joulegate_requests_total", model="phi-3-mini", code="200") > 8


def test_against_vllm_by_the_base_url_alone(backends, task):
    server = gateway_server({SMOLLM2.name: backends[SMOLLM2.name]}, task)
    with running([server]):
        server.wait_until_up("/ready", 60)
        through = evaluate(server.url, SMOLLM2.name, task)
    assert through["acc,none"] == 1
