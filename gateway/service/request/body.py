"""A client's request, decoded once: raw members for forwarding, the few that matter here parsed.

Rules: a body is decoded as `dict[str, Raw]`, so that every unknown member reaches vLLM byte for
byte; only members that steer, count or route are looked into; whatever is wrong is a BadRequest.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.scheduling.features import RequestFeatures
from gateway.service.client.errors import BadRequest
from gateway.service.request.application import describe_application, is_system
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.inference_request import InferenceRequest
from gateway.service.request.members import (
    ANSWER_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Members,
    PromptSize,
    decode_member,
    is_media,
    make_member_error,
    member_asks,
    read_count,
    read_token_limit,
)
from gateway.tokens import EXACT_BYTES, TokenCounter

MAX_NESTING = 64


class _ContentPart(Struct):
    type: str = ""
    text: str = ""
    refusal: str = ""


class _ChatMessage(Struct):
    role: str
    content: str | list[_ContentPart | str] | None = None
    tool_calls: Raw = Raw(b"")


class _StreamOptions(Struct):
    include_usage: bool | None = None


_members = msgspec.json.Decoder(Members)
_messages = msgspec.json.Decoder(list[_ChatMessage])
_inputs = msgspec.json.Decoder(str | list[Any])
_text = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)
_stream_options = msgspec.json.Decoder(_StreamOptions | None)
_STREAMS_OF_CHUNKS = (EndpointKind.CHAT, EndpointKind.COMPLETIONS)
_capabilities = {kind: frozenset({kind.capability}) for kind in EndpointKind}


def decode_members(body: bytes) -> Members:
    """Decode a body into raw members. Raises BadRequest."""
    _check_nesting(body)
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8 text") from None
    try:
        return _members.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest(f"the body is not a JSON object: {error}") from None


def parse_request(kind: EndpointKind, members: Members) -> InferenceRequest:
    """Look into the members that route a request. Raises BadRequest."""
    if "model" not in members:
        raise BadRequest("you must name a model; `auto` lets the gateway choose", param="model")
    # vLLM's embeddings know no streaming; asking for it there changes nothing.
    stream = kind.may_stream and bool(decode_member(members, "stream", _flag))
    model = decode_member(members, "model", _text)
    if kind not in _STREAMS_OF_CHUNKS:
        # The others' streams say what they used in any case.
        return InferenceRequest(kind, members, model, stream, wants_usage=True)
    options = decode_member(members, "stream_options", _stream_options) if stream else None
    wants_usage = bool(options and options.include_usage)
    return InferenceRequest(kind, members, model, stream, wants_usage)


def extract_features(ask: InferenceRequest, counter: TokenCounter) -> RequestFeatures:
    """Count the prompt's tokens and find what capabilities it needs. Raises BadRequest."""
    members = ask.members
    raw = members.get(ask.kind.prompt_member)
    if raw is None:
        raise BadRequest(
            f"you must provide {ask.kind.prompt_member!r}", param=ask.kind.prompt_member
        )
    if ask.kind is EndpointKind.CHAT:
        prompt = _measure_chat(ask, raw, counter)
    else:
        prompt = _measure_inputs(ask.kind, raw, counter)
        ask.words = prompt.words
        ask.application = describe_application(members, ask.kind.value)
    needs = _capabilities[ask.kind]
    more = prompt.needs
    if member_asks(members, "tools") or member_asks(members, "functions"):
        more = (*more, "tools")
    if member_asks(members, "logprobs") or member_asks(members, "top_logprobs", unless=b"0"):
        more = (*more, "logprobs")
    if ask.kind is EndpointKind.EMBEDDINGS:
        return RequestFeatures(
            prompt.tokens, 1, needs, dense_chars=prompt.dense_chars,
            prompts=prompt.prompts, longest=prompt.longest, exact=prompt.exact,
        )  # fmt: skip
    asked = read_token_limit(members, "max_completion_tokens")
    if asked is None:
        asked = read_token_limit(members, "max_tokens")
    return RequestFeatures(
        prompt.tokens,
        asked,
        needs.union(more) if more else needs,
        dense_chars=prompt.dense_chars,
        min_tokens=read_count(members, "min_tokens") or 0,
        ignore_eos="ignore_eos" in members and bytes(members["ignore_eos"]) == b"true",
        answers=max(read_count(members, "n") or 1, read_count(members, "best_of") or 1),
        prompts=prompt.prompts,
        longest=prompt.longest,
        exact=prompt.exact,
        truncate_tokens=read_count(members, "truncate_prompt_tokens"),
    )


def _measure_chat(ask: InferenceRequest, raw: Raw, counter: TokenCounter) -> PromptSize:
    members = ask.members
    try:
        messages = _messages.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise make_member_error("messages", error) from None
    if not messages:
        raise BadRequest("messages: must not be empty", param="messages")
    texts: list[str] = []
    media: list[str] = []
    system: list[str] = []
    for message in messages:
        content = message.content
        first = len(texts)
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            _read_parts(content, texts, media)
        if bytes(message.tool_calls) not in (b"", b"null"):
            texts.append(bytes(message.tool_calls).decode())
        if is_system(message.role):
            system += texts[first:]
        elif message.role == "user":
            ask.words = texts[-1] if len(texts) - first == 1 else "\n".join(texts[first:])
    if member_asks(members, "tools"):
        texts.append(bytes(members["tools"]).decode())
    ask.application = describe_application(members, "\n".join(system))
    ask.has_media = bool(media)
    counted = counter.measure(texts[0] if len(texts) == 1 else "\n".join(texts))
    overhead = MESSAGE_TOKENS * len(messages) + ANSWER_TOKENS + IMAGE_TOKENS * len(media)
    needs = {"audio" if "audio" in kind else "images" for kind in media}
    return PromptSize(counted.tokens + overhead, tuple(needs), counted.dense_chars)


def _read_parts(parts: list[_ContentPart | str], texts: list[str], media: list[str]) -> None:
    """Add a content list's texts to `texts` and the types of its media to `media`."""
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        else:
            texts.append(part.text or part.refusal)
            if is_media(part.type):
                media.append(part.type)


def _measure_inputs(kind: EndpointKind, raw: Raw, counter: TokenCounter) -> PromptSize:
    """Count a text, a list of texts, a list of token ids, or a list of such lists."""
    name = kind.prompt_member
    text = bytes(raw)
    if text.startswith(b"[") and not text.translate(None, b"[], \t\r\n0123456789"):
        # Token ids, nested or not: a comma stands between any two, so nothing need be decoded.
        if not text.translate(None, b"[], \t\r\n"):
            raise BadRequest(f"{name}: must not be empty", param=name)
        return _measure_ids(text)
    if len(text) > EXACT_BYTES and text.startswith(b"["):
        # Long lists are counted as they stand and taken to be of equals: that bounds the cost.
        counted = counter.measure(text.decode())
        prompts = text.count(b'","') + text.count(b'", "') + 1
        return PromptSize(counted.tokens, (), counted.dense_chars, prompts, 1.0 / prompts)
    try:
        value = _inputs.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise make_member_error(name, error) from None
    if isinstance(value, str):
        counted = counter.measure(value)
        return PromptSize(counted.tokens, dense_chars=counted.dense_chars, words=value)
    if value and all(isinstance(item, str) for item in value):
        counted = counter.measure("\n".join(value))
        longest = (max(map(len, value)) + 1) / (sum(map(len, value)) + len(value))
        return PromptSize(
            counted.tokens,
            dense_chars=counted.dense_chars,
            prompts=len(value),
            longest=longest,
            words=value[0],
        )
    if all(isinstance(item, dict) for item in value):
        # vLLM takes multimodal embedding inputs; counting their JSON bounds them from above.
        return PromptSize(counter.count_tokens(text.decode()))
    raise BadRequest(f"{name}: must be text, a list of texts or token ids", param=name)


def _measure_ids(text: bytes) -> PromptSize:
    """Count token ids, one list or many: the model's own, so that no scale applies."""
    tokens = text.count(b",") + 1
    lists = text.count(b"[") - 1
    if lists < 1:
        return PromptSize(tokens, exact=True)
    if len(text) > EXACT_BYTES:
        return PromptSize(tokens, prompts=lists, longest=1.0 / lists, exact=True)
    sizes = [part.strip(b"[, \t\r\n").count(b",") + 1 for part in text.split(b"]")[:lists]]
    return PromptSize(tokens, prompts=lists, longest=max(sizes) / sum(sizes), exact=True)


def _check_nesting(body: bytes) -> None:
    """Raise BadRequest where brackets nest deeper than `MAX_NESTING`.

    Linear, mostly memchr, and bounded in memory: 32 MB of anything take well under a second.
    """
    quotes = body.count(b'"')
    brackets = body.count(b"{") + body.count(b"[")
    if quotes > 2 * _MAX_PIECES:
        raise BadRequest(f"the body has more than {_MAX_PIECES} strings")
    if brackets <= MAX_NESTING:
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    found: list[bytes] = []
    inside = 0
    for start in range(0, len(bare), _WINDOW_BYTES):
        # Without escapes every other piece between quotes lies outside a string.
        pieces = bare[start : start + _WINDOW_BYTES].split(b'"')
        found.append(b"".join(pieces[inside::2]).translate(_ONE_KIND, delete=_NOT_BRACKETS))
        inside = (inside + len(pieces) - 1) % 2
    nest = b"".join(found)
    if len(nest) > 2 * _MAX_PIECES:
        raise BadRequest(f"the body has more than {_MAX_PIECES} pairs of brackets")
    for _ in range(MAX_NESTING):
        # One pass takes away the innermost level of every branch, and no more.
        left = nest.replace(b"[]", b"")
        if not left or len(left) == len(nest):
            nest = left
            break
        nest = left
    if nest:
        raise BadRequest(
            f"the body nests deeper than {MAX_NESTING} levels, or its brackets do not match"
        )


_MAX_PIECES = 1_000_000
_WINDOW_BYTES = 1 << 18
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def encode_members(members: Mapping[str, Raw]) -> bytes:
    """Encode members for a backend."""
    return msgspec.json.encode(members)
