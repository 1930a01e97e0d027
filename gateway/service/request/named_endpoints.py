"""vLLM's endpoints beside those that are decided for: by concrete model name, or not at all.

What generates nothing (tokens counted, prompts rendered, responses fetched) takes no joules that
anyone metered; what is not offered is the operator's own at each vLLM, and says so.
"""

from typing import Final, NamedTuple


class NamedEndpoint(NamedTuple):
    """One of them; it looks like an EndpointKind to whoever serves a request.

    `value` is what records and traces call it. `generates` says that a model works on it.
    """

    value: str
    url_path: str
    generates: bool = True
    multipart: bool = False
    prompt_member: str = "model"
    may_stream: bool = True
    needs: frozenset[str] = frozenset()
    method: str = "POST"


_GENERATING: Final = (
    ("score", "/score"),
    ("score", "/v1/score"),
    ("rerank", "/rerank"),
    ("rerank", "/v1/rerank"),
    ("rerank", "/v2/rerank"),
    ("pooling", "/pooling"),
    ("classify", "/classify"),
    ("embeddings_v2", "/v2/embed"),
    ("chat_batch", "/v1/chat/completions/batch"),
    ("generative_scoring", "/generative_scoring"),
    ("structured_decisions", "/v1/systemone"),
    ("cohere_chat", "/cohere/v2/chat"),
    ("generate_tokens", "/inference/v1/generate"),
)
_FREE: Final = (
    ("tokenize", "/tokenize"),
    ("detokenize", "/detokenize"),
    ("chat_render", "/v1/chat/completions/render"),
    ("completions_render", "/v1/completions/render"),
    ("messages_render", "/v1/messages/render"),
    ("cohere_render", "/cohere/v2/chat/render"),
    ("responses_render", "/v1/responses/render"),
    ("chat_derender", "/v1/chat/completions/derender"),
    ("completions_derender", "/v1/completions/derender"),
)
NAMED: Final = (
    *(NamedEndpoint(value, path) for value, path in _GENERATING),
    *(NamedEndpoint(value, path, generates=False) for value, path in _FREE),
    NamedEndpoint("transcriptions", "/v1/audio/transcriptions", multipart=True),
    NamedEndpoint("translations", "/v1/audio/translations", multipart=True),
    NamedEndpoint("tokenizer_info", "/tokenizer_info", generates=False, method="GET"),
)

GET_RESPONSE: Final = NamedEndpoint(
    "get_response", "/v1/responses/{id}", generates=False, method="GET"
)
CANCEL_RESPONSE: Final = NamedEndpoint(
    "cancel_response", "/v1/responses/{id}/cancel", generates=False
)

_OPERATORS: Final = (
    "the operator's: ask the vLLM server itself, which the gateway's clients may not"
)
_STATEFUL: Final = "not offered: it holds one connection to one server for as long as it is used"
_LORA: Final = (
    "not offered: it would change one of a model's servers; have vLLM load adapters at its start, "
    "and give each a model of its own in the gateway's config"
)
_DOCUMENT: Final = "vLLM's own; the gateway's document of its API is /schema/openapi.json"
REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(("/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"), _DOCUMENT),
    "/v1/realtime": _STATEFUL,
    "/v1/load_lora_adapter": _LORA,
    "/v1/unload_lora_adapter": _LORA,
    "/invocations": "not offered: it stands for several endpoints; ask the one that is meant",
    "/kv_event_sources": "not offered: it tells of one server's cache",
    **dict.fromkeys(
        (
            "/abort_requests", "/collective_rpc", "/fault_tolerance/apply",
            "/fault_tolerance/status", "/finish_weight_update", "/get_world_size",
            "/inference/v1/abort_requests", "/init_weight_transfer_engine", "/is_paused",
            "/is_scaling_elastic_ep", "/is_sleeping", "/pause", "/release_kv_cache_memory",
            "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache", "/resume",
            "/scale_elastic_ep", "/server_info", "/shutdown_weight_transfer_engine", "/sleep",
            "/start_draft_weight_update", "/start_profile", "/start_weight_update",
            "/stop_profile", "/update_weight_version", "/update_weights", "/wake_up",
            "/weight_checker", "/weight_info",
        ),
        _OPERATORS,
    ),
}  # fmt: skip
"""Paths that vLLM has and the gateway does not offer, each with the reason."""
