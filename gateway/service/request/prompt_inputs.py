"""Prompts and inputs: a text, a list of texts, a list of token ids, or a list of such lists.

Rules: long lists are counted as they stand, because taking them apart would hold the event loop;
what is none of these shapes counts as nothing and is passed on.
"""

from typing import Any

import msgspec
from msgspec import Raw

from backends.sse import UNREADABLE
from gateway.cut_text import cut_text
from gateway.service.request.application import describe_application
from gateway.service.request.conversation import measure_conversation
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.loose_values import read_value
from gateway.service.request.members import UNREAD, PromptSize, member_asks
from gateway.tokens import EXACT_BYTES, TokenCounter

_inputs = msgspec.json.Decoder(str | list[Any])
_SPACE = b" \t\r\n"


def measure_prompt(ask: InferenceRequest, counter: TokenCounter) -> PromptSize:
    """Count a completion's `prompt`, and the prompts that come as embeddings in `prompt_embeds`."""
    found = _measure_inputs(ask, ask.members.get("prompt"), counter)
    if not member_asks(ask.members, "prompt_embeds"):
        return found
    # How long they are only their tensors say; of them each is a prompt all the same.
    given = read_value(ask.members["prompt_embeds"])
    more = len(given) if isinstance(given, list) else 1
    prompts = more if found is UNREAD else more + found.prompts
    return found._replace(prompts=max(1, prompts))


def measure_input(ask: InferenceRequest, counter: TokenCounter) -> PromptSize:
    """Count what is to be embedded: `input`, or a conversation in `messages`."""
    if "input" not in ask.members and "messages" in ask.members:
        return measure_conversation(ask, counter)
    return _measure_inputs(ask, ask.members.get("input"), counter)


def _measure_inputs(ask: InferenceRequest, raw: Raw | None, counter: TokenCounter) -> PromptSize:
    ask.application = describe_application(ask.members, ask.kind.value)
    if raw is None:
        return UNREAD
    if memoryview(raw)[:1].tobytes() == b"[":
        text = bytes(raw)
        if not text.translate(None, b"[]0123456789," + _SPACE):
            return _measure_ids(text)
        if len(text) > EXACT_BYTES:
            # Taken to be of equals: that bounds the cost.
            counted = counter.measure(text.decode())
            prompts = text.count(b'","') + text.count(b'", "') + 1
            return PromptSize(
                counted.tokens, (), counted.dense_chars, prompts, 1.0 / prompts, sampled=True
            )
    try:
        value = cut_text(raw) or _inputs.decode(raw)
    except UNREADABLE:
        return UNREAD
    if isinstance(value, str):
        counted = counter.measure_texts([value])
        ask.words = value
        return PromptSize(counted.tokens, dense_chars=counted.dense_chars)
    return _measure_list(ask, value, raw, counter)


def _measure_list(
    ask: InferenceRequest, value: list[Any], raw: Raw, counter: TokenCounter
) -> PromptSize:
    """Count a short list that is not of token ids alone."""
    if value and all(isinstance(item, str) for item in value):
        ask.words = value[0]
        counted = counter.measure("\n".join(value))
        sizes = [len(item) + 1 for item in value]
        share = max(sizes) / sum(sizes)
        return PromptSize(counted.tokens, (), counted.dense_chars, len(value), share)
    if value and all(isinstance(item, dict) for item in value):
        # vLLM takes multimodal embedding inputs; counting their JSON bounds them from above.
        return PromptSize(counter.count_tokens(bytes(raw).decode()))
    return UNREAD


def _measure_ids(text: bytes) -> PromptSize:
    """Count token ids, one list or many: the model's own, so that no scale applies.

    A comma stands between any two, so nothing need be decoded.
    """
    if not text.translate(None, b"[]," + _SPACE):
        return UNREAD
    tokens = text.count(b",") + 1
    lists = text.count(b"[") - 1
    if lists < 1:
        return PromptSize(tokens, exact=True)
    if len(text) > EXACT_BYTES:
        return PromptSize(tokens, prompts=lists, longest=1.0 / lists, exact=True)
    sizes = [part.strip(b"[," + _SPACE).count(b",") + 1 for part in text.split(b"]")[:lists]]
    return PromptSize(tokens, prompts=lists, longest=max(sizes) / sum(sizes), exact=True)
