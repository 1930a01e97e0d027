"""What a client may ask, in the shapes that vLLM takes, and how it is told that it may not."""

import re
from http import HTTPStatus
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

Choices = Annotated[int, msgspec.Meta(ge=1, le=128)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
TopLogprobs = Annotated[int, msgspec.Meta(ge=0, le=20)]  # vLLM's --max-logprobs
Dimensions = Annotated[int, msgspec.Meta(ge=1, le=8192)]

T = TypeVar("T")
_FIELD = re.compile(r"at `\$\.(\w+)|missing required field `(\w+)`")
# A text, several, the token ids of one, or those of several.
Prompt = str | list[str | int | list[int]]


class SimulatorError(Exception):
    """A request that is answered with one of vLLM's error objects."""

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, kind, param)


def error_body(
    status: int, message: str, kind: str = "BadRequestError", param: str | None = None
) -> bytes:
    """The error object as vLLM has it: `code` is a number there, unlike OpenAI's."""
    error = {"message": message, "type": kind, "param": param, "code": status}
    return msgspec.json.encode({"error": error})


class ModelRequest(Protocol):
    """A body that names the model it is for; None is the one that is served."""

    @property
    def model(self) -> str | None:
        """Its name."""


class StreamOptions(msgspec.Struct):
    """What `stream_options` asks for."""

    include_usage: bool = False
    continuous_usage_stats: bool = False

    @property
    def wants_continuous_usage(self) -> bool:
        """Whether every chunk carries usage; vLLM wants both fields for that."""
        return self.include_usage and self.continuous_usage_stats


class ChatMessage(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ToolFunction(msgspec.Struct):
    """A function that the model may call."""

    name: str
    parameters: dict[str, Any] | None = None


class ToolDefinition(msgspec.Struct):
    """A tool that the model may call."""

    function: ToolFunction
    type: str = "function"


class GenerationRequest(msgspec.Struct, kw_only=True):
    """The fields that chat and completions share; unknown ones are ignored, as vLLM does."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: Natural = 0
    ignore_eos: bool = False
    n: Choices | None = 1
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    temperature: float | None = None
    seed: int | None = None

    @property
    def stop_strings(self) -> list[str]:
        """The stop strings."""
        if isinstance(self.stop, str):
            return [self.stop]
        return self.stop or []

    @property
    def asked_tokens(self) -> int | None:
        """The most new tokens that were asked for, if any."""
        return self.max_tokens


class ChatRequest(GenerationRequest, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: TopLogprobs | None = 0
    tools: list[ToolDefinition] | None = None
    tool_choice: str | dict[str, Any] | None = None

    @property
    def asked_tokens(self) -> int | None:
        """The most new tokens that were asked for, under its new or its old name."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens


class CompletionRequest(GenerationRequest, kw_only=True):
    """The body of /v1/completions."""

    prompt: Prompt
    max_tokens: int | None = 16  # vLLM's default here, as OpenAI's was
    logprobs: TopLogprobs | None = None
    echo: bool | None = False


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/embeddings."""

    input: Prompt
    model: str | None = None
    encoding_format: str = "float"
    dimensions: Dimensions | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of /tokenize: a prompt or a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of /detokenize."""

    tokens: list[int]
    model: str | None = None


def parse_body(body: bytes, kind: type[T]) -> T:
    """Decode a request body; raises SimulatorError (400) for anything malformed."""
    try:
        # Lax, as vLLM is: "true", 1 and "50" are taken for what they mean.
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        said = f"1 validation error: {error}"
        found = _FIELD.search(said)
        param = found and f"body.{found[1] or found[2]}"
        raise SimulatorError(HTTPStatus.BAD_REQUEST, said, param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SimulatorError(HTTPStatus.BAD_REQUEST, f"JSON decode error: {error}") from None
