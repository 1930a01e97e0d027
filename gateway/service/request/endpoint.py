"""The endpoints that the gateway decides for: where each is, and what a model needs to serve it."""

from enum import StrEnum
from typing import Final


class EndpointKind(StrEnum):
    """Which endpoint was asked; the value is what records and traces call it."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"

    @property
    def url_path(self) -> str:
        """The endpoint's path, here and at vLLM."""
        return _PATHS[self]

    @property
    def prompt_member(self) -> str:
        """The member that holds what the model is to read."""
        return _PROMPTS[self]

    @property
    def capability(self) -> str:
        """What a model must offer."""
        return _CAPABILITIES[self]

    @property
    def may_stream(self) -> bool:
        """Whether its answers may be streams."""
        return self not in _UNARY


_PATHS: Final = {
    EndpointKind.CHAT: "/v1/chat/completions",
    EndpointKind.COMPLETIONS: "/v1/completions",
    EndpointKind.EMBEDDINGS: "/v1/embeddings",
}
_PROMPTS: Final = {
    EndpointKind.CHAT: "messages",
    EndpointKind.COMPLETIONS: "prompt",
    EndpointKind.EMBEDDINGS: "input",
}
_CAPABILITIES: Final = {
    EndpointKind.CHAT: "chat",
    EndpointKind.COMPLETIONS: "completions",
    EndpointKind.EMBEDDINGS: "embeddings",
}
_UNARY: Final = frozenset({EndpointKind.EMBEDDINGS})
