"""From a request for chunks or vectors to its features: tokens in, tokens asked for, and needs.

Rules: what must be counted is the endpoint's own affair, one reader each; what is asked of the
answer is read here, by the names that all of them share. Nothing here refuses a request.
"""

from collections.abc import Callable
from typing import Final

from gateway.scheduling.features import RequestFeatures
from gateway.service.request.answer_limits import LIMIT_MEMBERS
from gateway.service.request.conversation import measure_conversation
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_count, read_flag, read_value
from gateway.service.request.members import Members, PromptSize, member_asks
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.prompt_inputs import measure_input, measure_prompt
from gateway.tokens import TokenCounter

_READERS: dict[
    EndpointKind | NamedEndpoint, Callable[[InferenceRequest, TokenCounter], PromptSize]
] = {
    EndpointKind.CHAT: measure_conversation,
    EndpointKind.COMPLETIONS: measure_prompt,
    EndpointKind.EMBEDDINGS: measure_input,
}
_LIMITS = {kind: LIMIT_MEMBERS.get(kind.value, ()) for kind in _READERS}
_USUAL_LIMITS: dict[EndpointKind | NamedEndpoint, int] = {
    EndpointKind.COMPLETIONS: 16,
    EndpointKind.EMBEDDINGS: 1,
}
"""The tokens of an answer whose request sets no limit, where vLLM does; an embedding has none."""


def extract_features(ask: InferenceRequest, counter: TokenCounter) -> RequestFeatures:
    """Count the prompt's tokens and find what is asked of the answer."""
    prompt = _READERS[ask.kind](ask, counter)
    members, needs = ask.members, ask.kind.needs
    if not (prompt.needs or prompt.sampled) and prompt.prompts == 1 and _SELDOM.isdisjoint(members):
        return RequestFeatures(
            prompt.tokens,
            _find_limit(ask),
            needs,
            dense_chars=prompt.dense_chars,
            longest=prompt.longest,
            exact=prompt.exact,
        )
    more = (*prompt.needs, *_find_needs(members))
    if ask.kind is EndpointKind.EMBEDDINGS:
        answers = 1
    else:
        chosen = max(1, read_count(members.get("n")) or 1)
        answers = max(chosen, read_count(members.get("best_of")) or 1)
        ask.choices = 0 if prompt.sampled else chosen * prompt.prompts
    return RequestFeatures(
        prompt.tokens,
        _find_limit(ask),
        needs.union(more) if more else needs,
        dense_chars=prompt.dense_chars,
        min_tokens=max(0, read_count(members.get("min_tokens")) or 0),
        ignore_eos=bool(read_flag(members.get("ignore_eos"))),
        answers=answers,
        prompts=prompt.prompts,
        longest=prompt.longest,
        exact=prompt.exact,
        truncate_tokens=read_count(members.get("truncate_prompt_tokens")) or None,
    )


_SELDOM: Final = frozenset(
    {
        "n", "best_of", "min_tokens", "ignore_eos", "truncate_prompt_tokens", "tools", "functions",
        "logprobs", "top_logprobs",
    }
)  # fmt: skip
"""Members that most requests have none of: what the code below would find without is known."""


def _find_needs(members: Members) -> tuple[str, ...]:
    """Return the capabilities that the answer takes, the prompt's own aside."""
    needs: tuple[str, ...] = ()
    if _may_call(members, "tools", "tool_choice") or _may_call(
        members, "functions", "function_call"
    ):
        needs = ("tools",)
    if member_asks(members, "logprobs") or member_asks(members, "top_logprobs", unless=b"0"):
        needs = (*needs, "logprobs")
    return needs


def _may_call(members: Members, tools: str, choice: str) -> bool:
    """Tell whether the answer may call one of the tools that are given."""
    return member_asks(members, tools) and read_value(members.get(choice)) != "none"


def _find_limit(ask: InferenceRequest) -> int | None:
    """Return the most tokens that one answer may have; None where only the context limits it."""
    for name in _LIMITS[ask.kind]:
        asked = read_count(ask.members.get(name))
        if asked is not None and asked >= 0:
            # With 0, for an echo of the prompt, vLLM makes one token and keeps it.
            return max(1, asked)
    return _USUAL_LIMITS.get(ask.kind)
