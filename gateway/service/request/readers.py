"""Which file reads which API's bodies for the decision."""

from collections.abc import Callable
from typing import Final

from gateway.scheduling.features import RequestFeatures
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.extraction import extract_features
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.messages_body import extract_messages_features
from gateway.service.request.named_endpoints import NamedEndpoint
from gateway.service.request.named_request import estimate_named_features
from gateway.service.request.responses_body import extract_responses_features
from gateway.tokens import TokenCounter

_READERS: Final[dict[EndpointKind, Callable[[InferenceRequest, TokenCounter], RequestFeatures]]] = {
    EndpointKind.RESPONSES: extract_responses_features,
    EndpointKind.MESSAGES: extract_messages_features,
    EndpointKind.COUNT_TOKENS: extract_messages_features,
}


def read_features(ask: InferenceRequest, counter: TokenCounter) -> RequestFeatures:
    """Count the prompt's tokens and find what capabilities it needs."""
    if isinstance(ask.kind, NamedEndpoint):
        return estimate_named_features(ask)
    return _READERS.get(ask.kind, extract_features)(ask, counter)
