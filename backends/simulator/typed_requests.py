"""Requests of the Responses and the Messages API, turned into the chat that vLLM makes of them."""

from http import HTTPStatus
from typing import Any

import msgspec

from backends.simulator.protocol import (
    ChatMessage,
    ChatRequest,
    SimulatorError,
    ToolDefinition,
    ToolFunction,
)

_TEXT_TYPES = frozenset({"text", "input_text", "output_text", "refusal"})


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/responses."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    stream: bool | None = False
    temperature: float | None = None
    store: bool | None = True
    background: bool | None = False
    previous_response_id: str | None = None
    request_id: str | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = True

    def to_chat(self, before: list[ChatMessage]) -> ChatRequest:
        """Return the chat, after the messages `before` it."""
        messages = [*before, *self.read_input()]
        if self.instructions:
            messages.insert(0, ChatMessage("system", self.instructions))
        named = self.tool_choice
        if isinstance(named, dict):
            named = {"function": {"name": named.get("name")}}
        return ChatRequest(
            messages=messages,
            max_tokens=self.max_output_tokens,
            tools=_make_tools(self.tools or [], "parameters"),
            tool_choice=named,
            response_format=self._read_format(),
            temperature=self.temperature,
        )

    def read_input(self) -> list[ChatMessage]:
        """Return the messages that `input` holds."""
        if isinstance(self.input, str):
            return [ChatMessage("user", self.input)]
        return [message for item in self.input for message in _read_item(item)]

    def _read_format(self) -> dict[str, Any] | None:
        form = (self.text or {}).get("format")
        if not isinstance(form, dict):
            return None
        if form.get("type") != "json_schema":
            return form
        return {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}


class MessagesRequest(msgspec.Struct, kw_only=True):
    """The body of /v1/messages, and of its token counting, which has no `max_tokens`."""

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = False
    temperature: float | None = None

    def to_chat(self) -> ChatRequest:
        """Return the chat."""
        messages = [message for one in self.messages for message in _read_blocks(one)]
        if self.system:
            messages.insert(0, ChatMessage("system", _join_texts(self.system)))
        form = (self.output_config or {}).get("format")
        wanted = None
        if isinstance(form, dict):
            wanted = {"type": "json_schema", "json_schema": {"schema": form.get("schema")}}
        return ChatRequest(
            messages=messages,
            max_tokens=self.max_tokens,
            tools=_make_tools(self.tools or [], "input_schema"),
            tool_choice=self._read_choice(),
            response_format=wanted,
            stop=self.stop_sequences,
            temperature=self.temperature,
        )

    def _read_choice(self) -> str | dict[str, Any] | None:
        choice = self.tool_choice or {}
        match choice.get("type"):
            case "any":
                return "required"
            case "tool":
                return {"function": {"name": choice.get("name")}}
            case found:
                return found


def _make_tools(tools: list[dict[str, Any]], schema: str) -> list[ToolDefinition] | None:
    """Return the functions among the tools; built-in ones are the server's affair."""
    found = [
        ToolDefinition(ToolFunction(str(tool["name"]), tool.get(schema)))
        for tool in tools
        if str(tool.get("type", "function")) in {"function", "custom"} and "name" in tool
    ]
    return found or None


def _read_item(item: dict[str, Any]) -> list[ChatMessage]:
    kind = str(item.get("type", "message"))
    if kind == "message":
        return [ChatMessage(str(item.get("role", "user")), _join_texts(item.get("content")))]
    if kind.endswith("_call_output"):
        return [ChatMessage("tool", _join_texts(item.get("output")))]
    if kind.endswith("_call"):
        return [_make_call(item.get("name"), item.get("arguments"))]
    return []


def _read_blocks(message: dict[str, Any]) -> list[ChatMessage]:
    role, content = str(message.get("role", "user")), message.get("content")
    if not isinstance(content, list):
        return [ChatMessage(role, _join_texts(content))]
    found = []
    for block in content:
        if not isinstance(block, dict):
            raise SimulatorError(HTTPStatus.BAD_REQUEST, "1 validation error: a block is no object")
        if block.get("type") == "tool_result":
            found.append(ChatMessage("tool", _join_texts(block.get("content"))))
        elif block.get("type") == "tool_use":
            arguments = msgspec.json.encode(block.get("input")).decode()
            found.append(_make_call(block.get("name"), arguments))
    words = _join_texts(content)
    return [*found, ChatMessage(role, words)] if words else found


def _make_call(name: Any, arguments: Any) -> ChatMessage:
    function = {"name": str(name), "arguments": str(arguments)}
    return ChatMessage("assistant", None, [{"type": "function", "function": function}])


def _join_texts(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise SimulatorError(HTTPStatus.BAD_REQUEST, "1 validation error: content is no text")
    texts = (
        str(part.get("text") or part.get("refusal") or "")
        for part in content
        if isinstance(part, dict) and str(part.get("type")) in _TEXT_TYPES
    )
    return "\n".join(texts)
