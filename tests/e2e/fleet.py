"""The four vLLM servers and the gateway before them, as the tests start them."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import yaml

from backends.vllm.launcher import CPU_FLAGS, build_command, cpu_environment
from backends.vllm.recipes import RECIPES, VllmRecipe
from tests.e2e.cache import CACHE, say
from tests.e2e.processes import Server, free_port

SMOLLM2 = VllmRecipe(
    name="smollm2-135m",
    hf_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    context_tokens=2048,
    capabilities=("chat", "completions", "logprobs"),
    gpu_memory_gib=1,
    cpu_kv_cache_gib=1,
    flags=RECIPES["phi-3-mini"].flags,
)
# Random weights call tools only when a parser makes vLLM decode under the tool's schema. The recipe
# has none, rightly; here it is the gateway's handling of tools that is on trial.
TOOLS = "phi-3-mini"
EXTRA = {
    TOOLS: ("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # lm-eval's remote tokeniser asks for it.
    SMOLLM2.name: ("--enable-tokenizer-info-endpoint",),
}
# Else a random model may write blanks between two JSON tokens for as long as it is let.
NO_BLANKS = (
    "--structured-outputs-config",
    '{"backend": "xgrammar", "disable_any_whitespace": true}',
)
FLEET: dict[str, VllmRecipe] = {**RECIPES, SMOLLM2.name: SMOLLM2}

# Best by energy, by time and by the default weights; by accuracy so bad that auto:accuracy, where
# joules and seconds still weigh a tenth each, does not take it.
SMOLLM2_PROFILE = {
    "accuracy": {"default": 0.3, "tasks": {}},
    "tokens": {"ratio": 1.0},
    "output": {"slope": 0.0, "intercept": 60.0},
    "seconds": {"form": "additive", "coefficients": [0.005, 0.0001, 0.002]},
    "joules": {"form": "additive", "coefficients": [0.5, 0.01, 0.2]},
    "provenance": {"note": "made up for the end-to-end tests"},
}


def vllm_server(recipe: VllmRecipe, python: Path, models: Path, logs: Path) -> Server:
    """Return a server for `recipe` with the tiny weights of the same name."""
    port = free_port()
    argv = build_command(
        recipe,
        host="127.0.0.1",
        port=port,
        model_path=models / recipe.name,
        extra=(*CPU_FLAGS, *NO_BLANKS, *EXTRA.get(recipe.name, ())),
        python=str(python),
    )
    small = replace(recipe, cpu_kv_cache_gib=1)
    env = cpu_environment(small, {})
    # What vLLM compiles on first use is kept from run to run.
    env |= {"TORCHINDUCTOR_CACHE_DIR": str(CACHE / "inductor"), "HF_HUB_OFFLINE": "1"}
    # Else it keeps no response to go on from.
    env |= {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
    return Server(recipe.name, argv, port, logs / f"vllm-{recipe.name}.log", env)


@contextlib.contextmanager
def running(servers: list[Server], *, at_once: int = 2) -> Iterator[None]:
    """Start servers a few at a time (each takes a core for 20 s); end all of them at the end."""
    try:
        for first in range(0, len(servers), at_once):
            batch = servers[first : first + at_once]
            for server in batch:
                server.start()
            for server in batch:
                server.wait_until_up()
                say(f"{server.name} up at {server.url} after {server.start_seconds:.0f} s")
        yield
    finally:
        for server in servers:
            server.close()


def gateway_server(backends: dict[str, Server], folder: Path) -> Server:
    """Write profile and configuration into `folder`; return the gateway that uses them."""
    shipped = resources.files("gateway") / "profiles" / "published.json"
    profile = json.loads(shipped.read_text(encoding="utf-8"))
    profile["models"][SMOLLM2.name] = SMOLLM2_PROFILE
    (folder / "profile.json").write_text(json.dumps(profile))
    config = {
        "models": [
            {
                "name": name,
                "profile": name,
                "context": FLEET[name].context_tokens,
                "capabilities": [*FLEET[name].capabilities, *(["tools"] if name == TOOLS else [])],
                "backends": [{"url": server.url}],
            }
            for name, server in backends.items()
        ],
        "profile": "profile.json",
        "presets": {"eco": {"weights": {"energy": 1}}},
        # What one test's answers teach would choose the model of the next.
        "learning": {"enabled": False},
    }
    return configured_gateway(config, folder)


def configured_gateway(config: dict, folder: Path) -> Server:
    """Write a configuration into `folder`; return the gateway that has it."""
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    joulegate = Path(sys.executable).with_name("joulegate")
    argv = [
        str(joulegate),
        "serve",
        "--config",
        str(path),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    return Server("gateway", argv, port, folder / "gateway.log", {})
