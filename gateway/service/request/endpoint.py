"""The endpoints that the gateway decides for: where each is, and what a model needs to serve it."""

from enum import StrEnum
from typing import Final


class EndpointKind(StrEnum):
    """Which endpoint was asked; the value is what records and traces call it."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"

    @property
    def url_path(self) -> str:
        """The endpoint's path, here and at vLLM."""
        return _PATHS[self]

    @property
    def prompt_member(self) -> str:
        """The member that holds what the model is to read."""
        return _PROMPTS[self]

    @property
    def needs(self) -> frozenset[str]:
        """What a model must offer: vLLM serves three APIs with what makes it chat."""
        return _NEEDS[self]

    @property
    def may_stream(self) -> bool:
        """Whether its answers may be streams."""
        return self not in _UNARY

    @property
    def method(self) -> str:
        """How it is asked."""
        return "POST"

    @property
    def generates(self) -> bool:
        """Whether a model works on it, so that it takes joules to be metered."""
        return self is not EndpointKind.COUNT_TOKENS


_PATHS: Final = {
    EndpointKind.CHAT: "/v1/chat/completions",
    EndpointKind.COMPLETIONS: "/v1/completions",
    EndpointKind.EMBEDDINGS: "/v1/embeddings",
    EndpointKind.RESPONSES: "/v1/responses",
    EndpointKind.MESSAGES: "/v1/messages",
    EndpointKind.COUNT_TOKENS: "/v1/messages/count_tokens",
}
_PROMPTS: Final = {
    EndpointKind.CHAT: "messages",
    EndpointKind.COMPLETIONS: "prompt",
    EndpointKind.EMBEDDINGS: "input",
    EndpointKind.RESPONSES: "input",
    EndpointKind.MESSAGES: "messages",
    EndpointKind.COUNT_TOKENS: "messages",
}
_CHAT: Final = frozenset({"chat"})
_NEEDS: Final = {
    EndpointKind.CHAT: _CHAT,
    EndpointKind.COMPLETIONS: frozenset({"completions"}),
    EndpointKind.EMBEDDINGS: frozenset({"embeddings"}),
    EndpointKind.RESPONSES: _CHAT,
    EndpointKind.MESSAGES: _CHAT,
    EndpointKind.COUNT_TOKENS: _CHAT,
}
_UNARY: Final = frozenset({EndpointKind.EMBEDDINGS, EndpointKind.COUNT_TOKENS})
