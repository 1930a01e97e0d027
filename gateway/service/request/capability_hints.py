"""What an operator does so that a model offers what a request needed."""

from collections.abc import Iterable
from typing import Final

from gateway.scheduling.decision import ExcludedCandidate

_OFFERED_BY: Final = {
    "tools": "vLLM's --enable-auto-tool-choice and --tool-call-parser, and a template with tools",
    "images": "a model that sees (vLLM's --limit-mm-per-prompt bounds how many)",
    "audio": "a model that hears (vLLM's --limit-mm-per-prompt bounds how much)",
    "logprobs": "vLLM's --max-logprobs above 0",
    "embeddings": "a model that embeds (vLLM's --runner pooling)",
    "chat": "a chat template (vLLM's --chat-template where the model has none)",
    "completions": "a model that generates (vLLM's --runner generate)",
}


def suggest_capabilities(excluded: Iterable[ExcludedCandidate]) -> str:
    """Return what would offer the capabilities that were lacking; "" where none was."""
    lacking = {
        name
        for out in excluded
        if out.code == "capability"
        for name in out.reason.rpartition(" offer ")[2].split(", ")
    }
    told = [f"{name} takes {_OFFERED_BY[name]}" for name in sorted(lacking & _OFFERED_BY.keys())]
    if not told:
        return ""
    return f"; {'; '.join(told)}; then name it in models[].capabilities of gateway.yaml"
