"""How long a prompt is in the simulated model, and the hash that its answer is drawn from."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from zlib import crc32

import msgspec

from backends.simulator import tokens
from backends.simulator.cost_model import CostModel
from backends.simulator.protocol import (
    ChatMessage,
    ChatRequest,
    Prompt,
    SimulatorError,
)
from backends.simulator.spec import SimulatorSpec


def measure_chat_prompt(request: ChatRequest, spec: SimulatorSpec) -> tuple[int, int]:
    """Prompt tokens of a chat and a hash its answer is drawn from. Raises SimulatorError."""
    if not request.messages:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            "1 validation error: messages must not be empty",
            param="body.messages",
        )
    pieces, mark = tokens.PER_CHAT, 0
    for message in request.messages:
        words, images = read_content(message)
        pieces += tokens.PER_MESSAGE + tokens.count_pieces(words) + tokens.PER_IMAGE * images
        mark = crc32(words.encode("utf-8", "surrogatepass"), mark)
    for tool in request.tools or ():
        pieces += tokens.count_pieces(msgspec.json.encode(tool).decode())
    return spec.count_tokens(pieces), mark


def measure_prompts(prompt: Prompt, spec: SimulatorSpec) -> list[tuple[int, int]]:
    """(prompt tokens, hash) of each prompt of a completion or embedding. Raises SimulatorError."""
    many = list_prompts(prompt)
    if not many:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST, "prompt must not be empty", param="body.prompt"
        )
    found = []
    for one in many:
        if isinstance(one, int):
            raise SimulatorError(
                HTTPStatus.BAD_REQUEST,
                "prompt must not mix texts and token ids",
                param="body.prompt",
            )
        if isinstance(one, str):
            count = spec.count_tokens(tokens.count_pieces(one))
            found.append((count, crc32(one.encode("utf-8", "surrogatepass"))))
        else:
            found.append((max(1, len(one)), crc32(repr(one).encode())))
    return found


def split_prompts(prompt: Prompt) -> list[list[str]]:
    """The pieces of each prompt: of token ids one each."""
    return [
        tokens.split_text(one)
        if isinstance(one, str)
        else [tokens.decode_ids([token]) for token in one]
        for one in list_prompts(prompt)
    ]


def check_prompt(truth: CostModel, tokens_in: int) -> None:
    """Raise SimulatorError in vLLM's words if a prompt alone fills the context."""
    if tokens_in >= truth.context:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            f"This model's maximum context length is {truth.context} tokens. However, your request "
            f"has {tokens_in} input tokens. Please reduce the length of the input messages.",
            param="input_tokens",
        )


def read_content(message: ChatMessage) -> tuple[str, int]:
    """The text of a message and how many images are in it."""
    if message.content is None:
        return "", 0
    if isinstance(message.content, str):
        return message.content, 0
    words = [str(p.get("text", "")) for p in message.content if p.get("type") == "text"]
    return "\n".join(words), sum(p.get("type") == "image_url" for p in message.content)


def list_prompts(prompt: Prompt) -> Sequence[Any]:
    """Return each text or list of token ids that a `prompt` or an `input` holds."""
    if isinstance(prompt, str) or (prompt and all(isinstance(p, int) for p in prompt)):
        return [prompt]
    return prompt
