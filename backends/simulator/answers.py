"""What will be answered, decided before the engine starts: how many tokens, which, and why it ends.

The engine then only says when each token is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from random import Random
from typing import Any

from backends.simulator import text, tokens
from backends.simulator.cost_model import CostModel
from backends.simulator.prompts import check_prompt, split_prompts
from backends.simulator.protocol import (
    ChatRequest,
    CompletionRequest,
    SimulatorError,
    ToolDefinition,
)
from backends.simulator.spec import SimulatorSpec


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an answer makes; its arguments are the answer's pieces."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class SimulatedCompletion:
    """One choice of a response, a piece of text per token."""

    index: int
    tokens_in: int
    pieces: list[str]
    finish_reason: str
    stop_reason: str | None = None
    tool: ToolCall | None = None
    cached_tokens: int = 0
    """Of the prompt, found in the prefix cache."""
    echo: Sequence[str] = ()
    """The prompt's own pieces, where they are to be said before the answer."""

    @property
    def tokens_out(self) -> int:
        """New tokens: one for each piece."""
        return len(self.pieces)

    @property
    def full_text(self) -> str:
        """All of it: the content, or the arguments of the tool call."""
        return "".join((*self.echo, *self.pieces))


def plan_chat(
    request: ChatRequest, spec: SimulatorSpec, truth: CostModel, tokens_in: int, mark: int
) -> list[SimulatedCompletion]:
    """The choices of a chat completion; raises SimulatorError for what cannot be served."""
    limit = _compute_token_limit(request, truth, tokens_in)
    answers = []
    for index in range(request.n or 1):
        rng = _make_rng(request, spec, mark, index)
        natural = truth.draw_tokens_out(tokens_in, rng)
        tool, must = _choose_tool(request, spec, rng)
        if tool is None:
            answers.append(_plan_text(request, spec, index, tokens_in, limit, natural, rng))
            continue
        arguments = _split_instance(tool.function.parameters or {"type": "object"})
        # The first token stands for the name, the last for the end of the turn.
        pieces = ["", *arguments, ""]
        reason = "tool_calls" if must != "named" else "stop"
        if len(pieces) > limit:
            pieces, reason = pieces[:limit], "length"
        call = ToolCall(f"chatcmpl-tool-{rng.getrandbits(64):016x}", tool.function.name)
        answers.append(SimulatedCompletion(index, tokens_in, pieces, reason, tool=call))
    return answers


def plan_completion(
    request: CompletionRequest,
    spec: SimulatorSpec,
    truth: CostModel,
    prompts: list[tuple[int, int]],
) -> list[SimulatedCompletion]:
    """The choices of a completion, `n` for each prompt."""
    answers: list[SimulatedCompletion] = []
    echoes = split_prompts(request.prompt) if request.echo else [()] * len(prompts)
    for (tokens_in, mark), echo in zip(prompts, echoes, strict=True):
        if request.echo and request.max_tokens == 0:
            # As at vLLM one token is generated, and not shown.
            check_prompt(truth, tokens_in)
            answers.append(SimulatedCompletion(len(answers), tokens_in, [""], "length", echo=echo))
            continue
        limit = _compute_token_limit(request, truth, tokens_in)
        for choice in range(request.n or 1):
            rng = _make_rng(request, spec, mark, choice)
            natural = truth.draw_tokens_out(tokens_in, rng)
            answer = _plan_text(request, spec, len(answers), tokens_in, limit, natural, rng)
            answers.append(replace(answer, echo=echo) if echo else answer)
    return answers


def _compute_token_limit(
    request: ChatRequest | CompletionRequest, truth: CostModel, tokens_in: int
) -> int:
    """How many new tokens are allowed at most."""
    check_prompt(truth, tokens_in)
    asked = request.asked_tokens
    if asked is None:
        return truth.context - tokens_in
    if asked < 1:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            f"max_tokens must be at least 1, got {asked}.",
            param="max_tokens",
        )
    if request.min_tokens > asked:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            f"min_tokens must be less than or equal to max_tokens={asked}, "
            f"got {request.min_tokens}.",
        )
    if asked > truth.context:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            f"max_tokens={asked} cannot be greater than max_model_len={truth.context}. "
            "Please request fewer output tokens.",
            param="max_tokens",
        )
    # As at vLLM, what the context leaves is enough.
    return min(asked, truth.context - tokens_in)


def _plan_text(
    request: ChatRequest | CompletionRequest,
    spec: SimulatorSpec,
    index: int,
    tokens_in: int,
    limit: int,
    natural: int,
    rng: Random,
) -> SimulatedCompletion:
    count = limit if request.ignore_eos else min(limit, max(natural, request.min_tokens))
    pieces = _plan_structured(request, spec, count, rng)
    if pieces is not None:
        ended = len(pieces) < limit
        pieces = [*pieces, ""] if ended else pieces[:limit]
        return SimulatedCompletion(index, tokens_in, pieces, "stop" if ended else "length")
    pieces = text.make_filler(spec.model, count, rng)
    cut = text.cut_at_stop(pieces, request.stop_strings, request.min_tokens)
    if cut is not None:
        return SimulatedCompletion(index, tokens_in, cut[0], "stop", stop_reason=cut[1])
    if request.ignore_eos or natural > limit:
        return SimulatedCompletion(index, tokens_in, pieces, "length")
    if count > 1:
        pieces[-1] = ""  # the end-of-turn token is counted and has no text
    return SimulatedCompletion(index, tokens_in, pieces, "stop")


def _plan_structured(
    request: ChatRequest | CompletionRequest, spec: SimulatorSpec, count: int, rng: Random
) -> list[str] | None:
    """The pieces of an answer whose form was prescribed, None if it was not."""
    outputs = request.structured_outputs or {}
    if isinstance(outputs.get("choice"), list) and outputs["choice"]:
        return tokens.split_text(str(rng.choice(outputs["choice"])))
    form = request.response_format or {}
    schema = outputs.get("json")
    if form.get("type") == "json_schema" and isinstance(form.get("json_schema"), dict):
        schema = form["json_schema"].get("schema")
    if isinstance(schema, dict):
        return _split_instance(schema)
    if form.get("type") == "json_object" or outputs.get("json_object"):
        return text.split_json_object(spec.model, count, rng)
    return None


def _split_instance(schema: dict[str, Any]) -> list[str]:
    """The pieces of a value that satisfies a client's schema."""
    try:
        return text.split_json(text.build_instance(schema))
    except (TypeError, ValueError, AttributeError) as error:
        raise SimulatorError(HTTPStatus.BAD_REQUEST, f"Invalid JSON schema: {error}") from None


def _choose_tool(
    request: ChatRequest, spec: SimulatorSpec, rng: Random
) -> tuple[ToolDefinition | None, str]:
    """The tool to call, if any, and how it was asked for."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return None, "none"
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        for tool in request.tools:
            if tool.function.name == name:
                return tool, "named"
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST, f"The tool {name!r} in tool_choice is not among the tools."
        )
    uncalled = _list_uncalled_tools(request)
    if choice == "required":
        return (uncalled or request.tools[-1:])[0], "required"
    if not spec.tools:
        raise SimulatorError(
            HTTPStatus.BAD_REQUEST,
            '"auto" tool choice requires --enable-auto-tool-choice '
            "and --tool-call-parser to be set",
        )
    # An answer to a tool's result is words, else an agent would never come to an end.
    called = bool(uncalled) and not _is_tool_answered(request) and rng.random() < spec.tool_chance
    return (uncalled[0] if called else None), "auto"


def _list_uncalled_tools(request: ChatRequest) -> list[ToolDefinition]:
    """The tools that the conversation holds no call of: each is called once and no more."""
    called = {
        call["function"].get("name")
        for message in request.messages
        for call in message.tool_calls or ()
        if isinstance(call.get("function"), dict)
    }
    return [tool for tool in request.tools or () if tool.function.name not in called]


def _is_tool_answered(request: ChatRequest) -> bool:
    """Whether a tool's result has come since the user spoke last."""
    for message in reversed(request.messages):
        if message.role in {"tool", "user"}:
            return message.role == "tool"
    return False


def _make_rng(
    request: ChatRequest | CompletionRequest, spec: SimulatorSpec, mark: int, choice: int
) -> Random:
    return Random(f"{spec.seed}:{request.seed}:{mark}:{choice}")  # noqa: S311 - to be repeatable
