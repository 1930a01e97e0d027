"""`GET /v1/models` and `/v1/models/{id}`: the concrete models, then `auto` and its presets.

Rules: concrete models come first, because clients take the first one they find; each entry has
what OpenAI's and vLLM's have (`root`, `parent`, `permission`, `max_model_len`), and what the model
can do or the preset means besides.
"""

import time
from functools import lru_cache, partial
from typing import Any

from litestar import Request, get

from gateway.api.callers import find_names
from gateway.config import GatewayConfig, ModelConfig
from gateway.scheduling.decision import MetricWeights
from gateway.service.pipeline import RequestPipeline
from gateway.service.request.routing_table import AUTO, MODEL_PREFIX, ModelNames

_OWNER = "joulegate"
_ROUTED = ("chat", "completions")


def list_contexts(config: GatewayConfig) -> dict[str, int]:
    """Return the tokens of each model's largest context."""
    contexts: dict[str, int] = {}
    for model in config.models:
        contexts[model.name] = max(model.context, contexts.get(model.name, 0))
    return contexts


def make_handlers(gateway: RequestPipeline) -> list[Any]:
    """Make the two route handlers; a key is told of what it may use, and of nothing else."""
    created = int(time.time())
    # Made anew when the names are others: a configuration may be taken into force while serving.
    describe = lru_cache(maxsize=1)(partial(_describe_names, created=created))

    @get("/v1/models", name="models", sync_to_thread=False)
    def list_models(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """List the names that a request may ask for."""
        names = find_names(gateway, request.scope["headers"])
        entries = describe(gateway.planner.names).items()
        offered = [entry for name, entry in entries if names.offers_name(name)]
        return {"object": "list", "data": offered}

    @get("/v1/models/{model_id:path}", name="model", sync_to_thread=False)
    def get_model(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Describe one of them."""
        name = str(request.path_params["model_id"]).removeprefix("/")
        find_names(gateway, request.scope["headers"]).resolve_name(name)
        return {**describe(gateway.planner.names)[name.removeprefix(MODEL_PREFIX)], "id": name}

    return [list_models, get_model]


def _describe_names(names: ModelNames, *, created: int) -> dict[str, dict[str, Any]]:
    """Return the entry of every name."""
    config = names.config
    entries = {model: _describe_model(model, config, created) for model in names.models}
    routed = [entry for entry in entries.values() if {*_ROUTED} & {*entry["capabilities"]}]
    weights = {AUTO: config.weights.to_metric_weights()}
    weights |= {f"{AUTO}:{preset}": of for preset, of in names.presets.items()}
    for name, of in weights.items():
        entries[name] = _describe_preset(name, of, config, routed, created)
    return entries


def _describe_model(name: str, config: GatewayConfig, created: int) -> dict[str, Any]:
    of = [model for model in config.models if model.name == name]
    return _make_entry(
        name,
        created,
        root=_find_root(of),
        context=max(model.context for model in of),
        capabilities={capability for model in of for capability in model.capabilities},
        description="served by itself: the model that is named",
    )


def _describe_preset(
    name: str,
    weights: MetricWeights,
    config: GatewayConfig,
    routed: list[dict[str, Any]],
    created: int,
) -> dict[str, Any]:
    counted = f"accuracy {weights.accuracy:.2g}, energy {weights.energy:.2g}"
    entry = _make_entry(
        name,
        created,
        root=name,
        context=max((entry["max_model_len"] for entry in routed), default=None),
        capabilities={each for entry in routed for each in entry["capabilities"]},
        description=f"the best model for each request: {counted}, time {weights.time:.2g}",
    )
    shown = {"accuracy": weights.accuracy, "energy": weights.energy, "time": weights.time}
    return {**entry, "weights": shown, "policy": config.policy}


def _make_entry(
    name: str,
    created: int,
    *,
    root: str,
    context: int | None,
    capabilities: set[str],
    description: str,
) -> dict[str, Any]:
    """Return what every name has, as OpenAI and vLLM have it."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": _OWNER,
        "root": root,
        "parent": None,
        "max_model_len": context,
        "permission": [],
        "capabilities": sorted(capabilities),
        "description": description,
    }


def _find_root(of: list[ModelConfig]) -> str:
    """Return what the model's servers call it."""
    return of[0].served_name or of[0].name
