"""`GET /v1/models` and `/v1/models/{id}`: the concrete models, `auto` and its presets."""

import time
from typing import Any

from litestar import Request, get

from gateway.config import GatewayConfig
from gateway.service.request.routing_table import AUTO, ModelNames


def list_contexts(config: GatewayConfig) -> dict[str, int]:
    """Return the tokens of each model's largest context."""
    contexts: dict[str, int] = {}
    for model in config.models:
        contexts[model.name] = max(model.context, contexts.get(model.name, 0))
    return contexts


def make_handlers(config: GatewayConfig, names: ModelNames) -> list[Any]:
    """Make the two route handlers."""
    created = int(time.time())
    contexts = list_contexts(config)

    def describe_model(name: str) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "joulegate",
        }
        if name in contexts:
            shown["max_model_len"] = contexts[name]
        return shown

    @get("/v1/models", name="models", sync_to_thread=False)
    def list_models() -> dict[str, Any]:
        """List the names that a request may ask for."""
        listed = [AUTO, *(f"{AUTO}:{preset}" for preset in names.presets), *names.models]
        return {"object": "list", "data": [describe_model(name) for name in listed]}

    @get("/v1/models/{model_id:path}", name="model", sync_to_thread=False)
    def get_model(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """Describe one of them."""
        name = str(request.path_params["model_id"]).removeprefix("/")
        names.resolve_name(name)
        return describe_model(name)

    return [list_models, get_model]
