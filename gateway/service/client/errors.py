"""Every error a client can be shown.

    ApiError
     +- BadRequest               the body or a header cannot be used                     400
     |   +- MethodNotAllowed, NotFound, UnknownModel, UnknownResponse              405, 404
     |   +- EndpointNotServed, NotOffered, MissingToken                       404, 403, 401
     |   +- InvalidApiKey, ModelNotAllowed  who asks is not known, or may not     401, 403
     |   +- TooLarge, UnsupportedEncoding, BodyTimeout, HeadTooLarge     413, 415, 408, 431
     |   +- UnsupportedCapability  no model offers what the request needs                400
     |   +- ContextExceeded      no model holds prompt and asked output                  400
     |   +- NoFeasibleModel      no model keeps the bounds, and `reject` was set         422
     +- BackendsUnavailable, GatewayDraining  no usable backend; stopping                503
     |   +- NoServerThere                   none was reached, or took it              503
     +- OverCapacity             the gateway holds as many bytes as it may                503
     +- GatewayBusy              as many are served as may be, and as many wait          429
     +- BackendsRateLimited      every backend tried was rate limited                    429
     +- RateLimitReached, BudgetExceeded   the API key has no more for now               429
     +- KeyStoreUnavailable      what it has left cannot be looked up                    503
     +- BadGateway               every backend tried failed, or refused our key          502
     +- GatewayTimeout           every backend tried stayed silent                       504
     +- StreamInterrupted        the answer broke after it had begun         (in the stream)
     +- UpstreamRejection        vLLM's own refusal of this request, passed on           4xx

Anything else that escapes a handler is a bug and is shown as a 500 without detail.
"""

from http import HTTPStatus

from gateway.service.client.api_error import ApiError, Header
from gateway.service.client.refusal import parse_refusal


class BadRequest(ApiError):
    """The body or a header cannot be used; `param` names the member or header."""

    status = HTTPStatus.BAD_REQUEST.value
    type = "invalid_request_error"
    code: str | None = None


class MethodNotAllowed(BadRequest):
    """The path exists, the method does not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED.value
    code = "method_not_allowed"
    more_headers: tuple[Header, ...] = ((b"allow", b"POST"),)


class UnknownModel(BadRequest):
    """No such model or preset."""

    status = HTTPStatus.NOT_FOUND.value
    code = "model_not_found"
    param = "model"


class InvalidApiKey(BadRequest):
    """No API key was sent, or none that is known here."""

    status = HTTPStatus.UNAUTHORIZED.value
    code = "invalid_api_key"
    more_headers = ((b"www-authenticate", b"Bearer"),)


class ModelNotAllowed(BadRequest):
    """The API key may not use this model or preset."""

    status = HTTPStatus.FORBIDDEN.value
    code = "model_not_allowed"
    param = "model"


class NotFound(BadRequest):
    """No such path, or no such request."""

    status = HTTPStatus.NOT_FOUND.value
    code = "not_found"


class UnknownResponse(BadRequest):
    """No backend here holds a response of this id."""

    status = HTTPStatus.NOT_FOUND.value
    code = "response_not_found"


class EndpointNotServed(BadRequest):
    """The model's server does not have the endpoint."""

    status = HTTPStatus.NOT_FOUND.value
    code = "endpoint_not_served"


class NotOffered(BadRequest):
    """vLLM has this path; the gateway does not offer it, and says why."""

    status = HTTPStatus.FORBIDDEN.value
    code = "not_offered"


class MissingToken(BadRequest):
    """The operators' token is missing or another."""

    status = HTTPStatus.UNAUTHORIZED.value
    type = "authentication_error"
    code = "invalid_token"
    more_headers: tuple[Header, ...] = ((b"www-authenticate", b"Bearer"),)


class TooLarge(BadRequest):
    """The body is over the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value
    code = "request_too_large"
    more_headers = ((b"connection", b"close"),)


class HeadTooLarge(BadRequest):
    """The request's head is over the limit."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value
    code = "headers_too_large"


class UnsupportedEncoding(BadRequest):
    """The body is compressed in a way that is not understood here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value
    code = "unsupported_content_encoding"
    more_headers = ((b"accept-encoding", b"gzip, deflate, zstd"),)


class BodyTimeout(BadRequest):
    """The body did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT.value
    code = "request_timeout"


class UnsupportedCapability(BadRequest):
    """No model that could be asked offers what the request needs."""

    code = "unsupported_capability"


class ContextExceeded(BadRequest):
    """The prompt and the asked output fit no model that could be asked."""

    code = "context_length_exceeded"
    param = "messages"


class NoFeasibleModel(BadRequest):
    """No model keeps within the caller's bounds."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY.value
    code = "no_feasible_model"


class BackendsUnavailable(ApiError):
    """No usable backend."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    code = "no_backend_available"


class NoServerThere(BackendsUnavailable):
    """No server was reached, or those reached said when to come back (503 with Retry-After)."""

    code = "backends_failed"


class GatewayDraining(ApiError):
    """The gateway is shutting down; another replica may well answer."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    should_retry = True
    code = "draining"


class OverCapacity(ApiError):
    """The gateway holds as many bytes of requests and answers as it may."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    should_retry = True
    code = "over_capacity"
    more_headers = ((b"connection", b"close"),)


class GatewayBusy(ApiError):
    """The gateway serves as many requests as it may, and no more can wait in time."""

    status = HTTPStatus.TOO_MANY_REQUESTS.value
    type = "rate_limit_error"
    should_retry = True
    code = "gateway_busy"


class BackendsRateLimited(ApiError):
    """Every backend tried was rate limited."""

    status = HTTPStatus.TOO_MANY_REQUESTS.value
    type = "rate_limit_error"
    code = "rate_limited"


class RateLimitReached(ApiError):
    """The API key has used its requests or tokens of this minute; `type` says which."""

    status = HTTPStatus.TOO_MANY_REQUESTS.value
    type = "requests"
    code = "rate_limit_exceeded"
    should_retry = True


class BudgetExceeded(ApiError):
    """A hard budget of the API key has too little left for this request."""

    status = HTTPStatus.TOO_MANY_REQUESTS.value
    type = "insufficient_quota"
    code = "budget_exceeded"


class KeyStoreUnavailable(ApiError):
    """What the API key has left cannot be looked up, and `when_away` is `closed`."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    should_retry = True
    code = "key_store_unavailable"


class BadGateway(ApiError):
    """Every backend tried answered nonsense, or refused the gateway's key."""

    status = HTTPStatus.BAD_GATEWAY.value
    code = "bad_gateway"


class GatewayTimeout(ApiError):
    """Every backend tried stayed silent."""

    status = HTTPStatus.GATEWAY_TIMEOUT.value
    code = "upstream_timeout"


class StreamInterrupted(ApiError):
    """The answer broke after it had begun."""

    status = HTTPStatus.BAD_GATEWAY.value
    code = "stream_interrupted"


class UpstreamRejection(ApiError):
    """vLLM's refusal of this request, in OpenAI's shape."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("")
        self.status = status
        self.type = "invalid_request_error"
        refusal = parse_refusal(status, body)
        self.message, self.param = refusal.message, refusal.param
        self.code = None
        # A router's 404 is `{"detail": "Not Found"}`; vLLM's own is for a model, or an answer.
        if status == HTTPStatus.NOT_FOUND and refusal.names_model:
            self.code = "response_not_found" if self.param == "response_id" else "model_not_found"
        if refusal.is_too_long_prompt:
            self.code = "context_length_exceeded"

    @property
    def logged(self) -> str:
        """Who said so, in none of its words: they may be the prompt's."""
        return f"refused by the backend: {self.code or self.type}"
