"""How vLLM serves each of the three models.

A recipe is plain data: the launcher turns it into a command line, and nothing here imports vLLM.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

TEMPLATES: Final = Path(__file__).parent / "templates"


class UnknownRecipeError(LookupError):
    """No recipe has this name; the message lists those there are."""


@dataclass(frozen=True, slots=True)
class VllmRecipe:
    """One model as vLLM should serve it.

    `capabilities` is what the gateway may promise a client, so it holds only what the model's own
    chat template can do. `gpu_memory_gib` is the smallest card that holds the bfloat16 weights and
    at least one request of full context; `cpu_kv_cache_gib` the cache for the same on a CPU.
    """

    name: str
    hf_model: str
    context_tokens: int
    capabilities: tuple[str, ...]
    gpu_memory_gib: int
    cpu_kv_cache_gib: int
    chat_template: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def chat_template_path(self) -> Path | None:
        """The packaged chat template, or None where the model brings its own."""
        return TEMPLATES / self.chat_template if self.chat_template else None


# None of the three was trained on tool calls, and none of their templates shows tools to the model,
# so no `--tool-call-parser` fits (vLLM's `mistral` parser needs the [TOOL_CALLS] token that v0.3
# introduced) and "tools" is not promised: without a parser vLLM refuses every tool_choice.
_TEXT: Final = ("chat", "completions", "logprobs")

# Per-request times and cached tokens feed the regressions: without the first, queueing cannot be
# told from computing; without the second, a prefix-cache hit looks like a fast model.
_MEASURED: Final = ("--enable-per-request-metrics", "--enable-prompt-tokens-details")

RECIPES: Final[dict[str, VllmRecipe]] = {
    recipe.name: recipe
    for recipe in (
        VllmRecipe(
            name="phi-3-mini",
            hf_model="microsoft/Phi-3-mini-4k-instruct",
            context_tokens=4096,
            capabilities=_TEXT,
            gpu_memory_gib=16,  # 7.6 GB of weights, 0.39 MB a token of cache (no grouped heads)
            cpu_kv_cache_gib=4,
            flags=_MEASURED,
        ),
        VllmRecipe(
            name="mistral-7b",
            hf_model="mistralai/Mistral-7B-Instruct-v0.2",
            context_tokens=32768,
            capabilities=_TEXT,
            gpu_memory_gib=24,  # 14.5 GB of weights, 4.3 GB of cache for one full context
            cpu_kv_cache_gib=8,
            flags=_MEASURED,
        ),
        VllmRecipe(
            name="falcon-7b",
            hf_model="tiiuae/falcon-7b-instruct",
            context_tokens=2048,
            capabilities=_TEXT,
            gpu_memory_gib=24,  # 14.4 GB of weights; one key-value head makes the cache tiny
            cpu_kv_cache_gib=1,
            chat_template="falcon-7b.jinja",  # the model has none, and vLLM then refuses chat
            flags=_MEASURED,
        ),
    )
}


def get_recipe(name: str) -> VllmRecipe:
    """Return the recipe called `name`; UnknownRecipeError lists the names when there is none."""
    try:
        return RECIPES[name]
    except KeyError:
        known = ", ".join(RECIPES)
        raise UnknownRecipeError(f"no recipe for {name!r}; there are: {known}") from None
