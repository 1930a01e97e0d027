"""What a simulated model says: filler that admits to being filler, the same for the same prompt."""

from collections.abc import Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any

import msgspec

from backends.simulator import tokens

_SENTENCES = (
    "This answer is simulated, so its words carry no meaning of their own.",
    "A batch of requests shares the reading of the weights at every step.",
    "The time and the energy behind these tokens follow a fitted profile.",
    "Longer prompts take longer to read, and longer answers take longer to write.",
    "A small model often answers well enough and spends far fewer joules.",
    "A large model is worth its price where accuracy counts for more than energy.",
    "Nothing here was computed on a graphics card, but the clock was kept honestly.",
    "Measure first, then decide, and keep the reasons where people can read them.",
    "When the load changes, the cost of a token changes with it.",
    "The gateway only sees what a real server would have shown it.",
)
_WORDS = tuple(
    f" {word}" for k in range(7) for s in _SENTENCES[k:] + _SENTENCES[:k] for word in s.split()
)
_MAX_DEPTH = 12  # of a schema that refers to itself


def make_filler(model: str, count: int, rng: Random) -> list[str]:
    """`count` tokens of text, the first of which say which model is being simulated."""
    head = ["[simulated", *(f" {part}" for part in model.split()[:1]), "]"]
    start = rng.randrange(len(_WORDS))
    words = [*head, *(_WORDS[(start + k) % len(_WORDS)] for k in range(count - len(head)))]
    return words[:count]


def cut_at_stop(
    pieces: list[str], stop: Sequence[str], min_tokens: int
) -> tuple[list[str], str] | None:
    """The tokens up to the earliest stop string (left out, as vLLM does) and which it was."""
    text = "".join(pieces)
    begin = sum(map(len, islice(pieces, min_tokens)))
    found = [(at, s) for s in stop if s and (at := text.find(s, begin)) >= 0]
    if not found:
        return None
    at, which = min(found)
    cut: list[str] = []
    used, position = 0, 0
    for piece in pieces:
        cut.append(piece[: max(0, at - position)])
        position += len(piece)
        used += 1
        if position >= at + len(which):
            break
    return cut[:used], which


def split_json(value: Any, count: int | None = None) -> list[str]:
    """A JSON value in token-sized pieces, at most `count` of them."""
    return tokens.split_text(msgspec.json.encode(value).decode())[:count]


def split_json_object(model: str, count: int, rng: Random) -> list[str]:
    """The pieces of a JSON object with an answer of about `count` tokens in it."""
    words = "".join(make_filler(model, max(4, count - 12), rng))
    return split_json({"simulated": True, "answer": words})


def build_instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that satisfies a simple JSON schema: defaults, first choices, least sizes."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return None
    root = schema if root is None else root
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    if "$ref" in schema:
        return build_instance(_resolve_reference(str(schema["$ref"]), root), root, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return build_instance(schema[key][0], root, depth + 1)
    return _build_of_type(schema, root, depth)


def _build_of_type(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "null"
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            names = schema.get("required") or list(properties)
            return {
                name: build_instance(properties.get(name, {}), root, depth + 1) for name in names
            }
        case "array":
            # few of them further down: nested lists would multiply
            least = min(schema.get("minItems", 1), 64 if depth < 2 else 2)  # noqa: PLR2004
            return [build_instance(schema.get("items", {}), root, depth + 1)] * least
        case "string":
            text = "simulated".ljust(min(schema.get("minLength", 0), 1024), ".")
            return text[: schema.get("maxLength", len(text))]
        case _:
            least = schema.get("minimum", 1)
            scalars = {"integer": int(least), "number": float(least), "boolean": True}
            return scalars.get(kind)


def _resolve_reference(ref: str, root: Any) -> Any:
    """What a reference inside the same schema points to, or None."""
    found = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found
