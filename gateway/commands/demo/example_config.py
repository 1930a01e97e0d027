"""A config for the three models that Joulegate ships a profile and recipes for."""

from collections.abc import Mapping

from backends.vllm.recipes import RECIPES
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.deciding_config import LearningConfig

FIRST_PORT = 8000


def make_example_config(
    urls: Mapping[str, str] | None = None,
    *,
    meter: str | None = None,
    tools: tuple[str, ...] = (),
    profile: str | None = None,
    learns_lengths: bool = True,
    embedder: tuple[str, int] | None = None,
) -> GatewayConfig:
    """Return it, with each model's backend at `urls[name]` (default: loopback, port 8000 up).

    Further ones are at `urls[name-2]` and on. `meter` is a meter's URL; it has a ledger for each
    backend, by the backend's name.
    `embedder` is the name and the context of a further model, which embeds.
    `learns_lengths` is off where what is chosen must not depend on answers seen before.
    """
    models = []
    for place, recipe in enumerate(RECIPES.values()):
        own = {recipe.name: f"http://127.0.0.1:{FIRST_PORT + place}"}
        if urls:
            own = {name: url for name, url in urls.items() if name.startswith(recipe.name)}
        extra = ("tools",) if recipe.name in tools else ()
        models.append(
            ModelConfig(
                name=recipe.name,
                context=recipe.context_tokens,
                capabilities=(*recipe.capabilities, *extra),  # type: ignore[arg-type]
                backends=tuple(
                    BackendConfig(url, meter=meter and f"{meter}/{name}")
                    for name, url in own.items()
                ),
            )
        )
    if embedder is not None and urls:
        name, context = embedder
        backend = BackendConfig(urls[name], meter=meter and f"{meter}/{name}")
        embeds = ModelConfig(name, context, backends=(backend,), capabilities=("embeddings",))
        models.append(embeds)
    learning = LearningConfig(enabled=learns_lengths)
    return GatewayConfig(models=tuple(models), profile=profile, learning=learning)
