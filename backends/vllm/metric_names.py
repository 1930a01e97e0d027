"""The names of vLLM's metrics that are read here, and that the simulator shows."""

from typing import Final

REQUESTS_RUNNING: Final = "vllm:num_requests_running"
REQUESTS_WAITING: Final = "vllm:num_requests_waiting"
KV_CACHE_USAGE: Final = "vllm:kv_cache_usage_perc"
PROMPT_TOKENS: Final = "vllm:prompt_tokens_total"
PROMPT_TOKENS_BY_SOURCE: Final = "vllm:prompt_tokens_by_source_total"
COMPUTED_SOURCE: Final = "local_compute"
"""The `source` of prompt tokens that no cache had."""
GENERATION_TOKENS: Final = "vllm:generation_tokens_total"
PREEMPTIONS: Final = "vllm:num_preemptions_total"
REQUEST_SUCCESS: Final = "vllm:request_success_total"
TIME_TO_FIRST_TOKEN: Final = "vllm:time_to_first_token_seconds"  # noqa: S105 - no password
REQUEST_LATENCY: Final = "vllm:e2e_request_latency_seconds"
