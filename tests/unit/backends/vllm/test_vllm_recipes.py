import re
import sys

import pytest

from backends.vllm import launcher
from backends.vllm.launcher import (
    LaunchError,
    VllmMissingError,
    build_command,
    cpu_environment,
    launch_vllm,
)
from backends.vllm.recipes import RECIPES, TEMPLATES, UnknownRecipeError, VllmRecipe, get_recipe


class Replaced(Exception):
    """The process would be another one now."""


def become(path, argv, env):
    raise Replaced(path, argv, env)


def become_nothing(*_):
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def with_vllm(tmp_path, monkeypatch):
    """Make a module called vllm importable; nothing of it is run."""
    (tmp_path / "vllm.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)


def after(argv, flag):
    return argv[argv.index(flag) + 1]


def test_the_three_models():
    assert {name: (r.hf_model, r.context_tokens) for name, r in RECIPES.items()} == {
        "phi-3-mini": ("microsoft/Phi-3-mini-4k-instruct", 4096),
        "mistral-7b": ("mistralai/Mistral-7B-Instruct-v0.2", 32768),
        "falcon-7b": ("tiiuae/falcon-7b-instruct", 2048),
    }


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UnknownRecipeError, match="'gpt-5'; there are: phi-3-mini, mistral-7b, fal"):
        get_recipe("gpt-5")


@pytest.mark.parametrize("name", RECIPES)
def test_command(name):
    made = get_recipe(name)
    argv = build_command(made, host="127.0.0.1", port=8001)
    assert argv[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert after(argv, "--model") == made.hf_model
    assert after(argv, "--served-model-name") == name
    assert after(argv, "--max-model-len") == str(made.context_tokens)
    assert after(argv, "--host") == "127.0.0.1"
    assert after(argv, "--port") == "8001"
    assert "--enable-per-request-metrics" in argv
    assert "--enable-prompt-tokens-details" in argv


def test_a_local_directory_other_flags_and_another_python(tmp_path):
    argv = build_command(
        get_recipe("mistral-7b"),
        host="0.0.0.0",
        port=1,
        model_path=tmp_path,
        extra=("--max-model-len", "8192"),
        python="/opt/vllm/bin/python",
    )
    assert argv[0] == "/opt/vllm/bin/python"
    assert after(argv, "--model") == str(tmp_path)
    # Last, so that argparse lets it win over the recipe's own.
    assert argv[-2:] == ["--max-model-len", "8192"]


def test_only_falcon_needs_a_template_and_it_is_packaged():
    assert [name for name, r in RECIPES.items() if r.chat_template] == ["falcon-7b"]
    falcon = get_recipe("falcon-7b")
    assert falcon.chat_template_path == TEMPLATES / "falcon-7b.jinja"
    assert after(build_command(falcon, host="h", port=1), "--chat-template") == str(
        falcon.chat_template_path
    )
    assert "--chat-template" not in build_command(get_recipe("phi-3-mini"), host="h", port=1)
    text = falcon.chat_template_path.read_text(encoding="utf-8")
    assert "add_generation_prompt" in text
    assert text.count("{%") == text.count("%}")


def test_no_model_promises_what_its_template_cannot_do():
    for made in RECIPES.values():
        assert set(made.capabilities) == {"chat", "completions", "logprobs"}
        assert "--tool-call-parser" not in made.flags


def test_cpu_environment_keeps_what_the_user_set():
    made = cpu_environment(get_recipe("mistral-7b"), {"VLLM_CPU_KVCACHE_SPACE": "3", "HOME": "/h"})
    assert made == {
        "VLLM_CPU_KVCACHE_SPACE": "3",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_TARGET_DEVICE": "cpu",
        "HOME": "/h",
    }


@pytest.mark.parametrize("name", RECIPES)
def test_the_cpu_s_cache_holds_one_full_context(name):
    # Bytes of keys and values per token in bfloat16: layers x key-value heads x head size.
    per_token = {
        "phi-3-mini": 2 * 2 * 32 * 32 * 96,
        "mistral-7b": 2 * 2 * 32 * 8 * 128,
        "falcon-7b": 2 * 2 * 32 * 1 * 64,
    }[name]
    made = get_recipe(name)
    assert made.context_tokens * per_token <= made.cpu_kv_cache_gib * 2**30


@pytest.mark.usefixtures("with_vllm")
def test_launch_on_a_cpu_replaces_the_process():
    with pytest.raises(Replaced) as replaced:
        launch_vllm(
            get_recipe("phi-3-mini"),
            host="127.0.0.1",
            port=8001,
            device="cpu",
            environ={"PATH": "/bin"},
            execve=become,
        )
    path, argv, env = replaced.value.args
    assert path == argv[0] == sys.executable
    assert "--enforce-eager" in argv
    assert env["PATH"] == "/bin"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "4"


@pytest.mark.usefixtures("with_vllm")
def test_launch_on_a_gpu_leaves_the_environment_alone():
    with pytest.raises(Replaced) as replaced:
        launch_vllm(
            get_recipe("phi-3-mini"),
            host="h",
            port=1,
            device="gpu",
            environ={"A": "b"},
            execve=become,
        )
    _, argv, env = replaced.value.args
    assert env == {"A": "b"}
    assert "--enforce-eager" not in argv


@pytest.mark.usefixtures("with_vllm")
def test_a_refused_start_is_said():
    with pytest.raises(LaunchError, match=re.escape(f"cannot start {sys.executable}: Permission")):
        launch_vllm(get_recipe("phi-3-mini"), host="h", port=1, execve=become_nothing)


def test_without_vllm_the_message_says_what_to_do(monkeypatch):
    # None marks a module as not importable.
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(VllmMissingError) as caught:
        launch_vllm(get_recipe("falcon-7b"), host="h", port=1, execve=become)
    assert "[vllm]'" in str(caught.value)
    assert "joulegate backend falcon-7b --simulate" in str(caught.value)


def test_a_gpu_is_known_by_its_device_file(tmp_path):
    node = tmp_path / "nvidia0"
    assert not launcher.has_gpu([node])
    node.touch()
    assert launcher.has_gpu([node])
    assert launcher.wants_cpu("cpu")
    assert not launcher.wants_cpu("gpu")


def test_recipes_are_values():
    assert VllmRecipe("a", "b", 1, (), 1, 1) == VllmRecipe("a", "b", 1, (), 1, 1)


class TestFalconTemplate:
    @pytest.fixture
    def render(self):
        jinja2 = pytest.importorskip(
            "jinja2", reason="jinja2 is vLLM's; the end-to-end tests render the template with it"
        )

        def refuse(message):
            raise ValueError(message)

        environment = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        template = environment.from_string((TEMPLATES / "falcon-7b.jinja").read_text())
        return lambda *messages, **more: template.render(
            messages=[{"role": role, "content": content} for role, content in messages],
            **{"add_generation_prompt": True, "eos_token": "<|endoftext|>"} | more,
        )

    def test_a_dialogue(self, render):
        assert render(
            ("system", " Be brief. "), ("user", "Hi\n"), ("assistant", "Hello."), ("user", "Bye")
        ) == ("Be brief.\n\nUser: Hi\nAssistant: Hello.<|endoftext|>\nUser: Bye\nAssistant:")

    def test_without_a_turn_that_is_due(self, render):
        assert render(("user", "Hi"), add_generation_prompt=False) == "User: Hi\n"

    def test_tools_are_refused(self, render):
        with pytest.raises(ValueError, match="knows the roles system, user and assistant, not too"):
            render(("user", "Hi"), ("tool", "42"))
