"""Reading the code's definitions into words: structs, errors, options."""

# ruff: noqa: INP001 - a script's helper

import ast
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types

from gateway.service.client.api_error import ApiError

ROOT = Path(__file__).parents[1]


def structs(path: str, struct: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Yield a struct and those under its keys, each with where it stands in the file."""
    yield path, struct
    found = types.type_info(struct)
    assert isinstance(found, types.StructType)  # noqa: S101 - narrows for mypy
    for field in found.fields:
        where = f"{path}.{field.encode_name}".lstrip(".")
        inner = field.type
        if isinstance(inner, types.VarTupleType):
            where, inner = f"{where}[]", inner.item_type
        elif isinstance(inner, types.DictType):
            where, inner = f"{where}.NAME", inner.value_type
        # One that may be left out is a struct or None.
        several = inner.types if isinstance(inner, types.UnionType) else (inner,)
        for one in several:
            if isinstance(one, types.StructType):
                yield from structs(where, one.cls)


def words(found: types.Type) -> str:
    """Say a msgspec type with its limits, in words."""
    name = _WORDS.get(type(found))
    match found:
        case types.Metadata():
            names = (found.extra_json_schema or {}).get("enum", ())
            name = ", ".join(f"`{value}`" for value in names) or words(found.type)
        case types.UnionType():
            several = (one for one in found.types if not isinstance(one, types.NoneType))
            name = " or ".join(words(one) for one in several)
        case types.VarTupleType():
            least = f", at least {found.min_length}" if found.min_length else ""
            name = f"list of {_many(found.item_type)}{least}"
        case types.DictType():
            name = f"mapping of names to {_many(found.value_type)}"
        case types.LiteralType():
            name = ", ".join(f"`{value}`" for value in found.values)
        case types.IntType() | types.FloatType():
            signs = {"over": found.gt, "at least": found.ge, "under": found.lt, "at most": found.le}
            limits = [f"{sign} {value:g}" for sign, value in signs.items() if value is not None]
            name = ", ".join([str(name), *limits])
    if name is None:
        raise TypeError(f"no words for {found!r}")
    return name


_WORDS: dict[type, str] = {
    types.StructType: "mapping",
    types.IntType: "whole number",
    types.FloatType: "number",
    types.StrType: "text",
    types.BoolType: "true or false",
}


def _many(found: types.Type) -> str:
    return words(found) + ("s" if type(found) in _WORDS else "")


def default(field: types.Field) -> str:
    """Say a key's default, as JSON where it is short."""
    if field.required:
        return "required"
    value = field.default_factory() if field.default is NODEFAULT else field.default
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
        if isinstance(field.type, types.StructType) and value == msgspec.to_builtins(_bare(field)):
            return "see below"
    if value is None or value in ({}, ()):
        return "none"
    return f"`{msgspec.json.encode(value).decode()}`"


def _bare(field: types.Field) -> msgspec.Struct | None:
    """Return a struct made of its own defaults, or None where it cannot be."""
    assert isinstance(field.type, types.StructType)  # noqa: S101 - narrows for mypy
    try:
        return field.type.cls()
    except (TypeError, ValueError):
        return None


def tree(error: type[ApiError]) -> Iterator[type[ApiError]]:
    """Yield an error class and all below it."""
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


def codes_given() -> dict[str, list[str]]:
    """Find the codes that a raise gives to an error beside its class's own."""
    known = {error.__name__ for error in tree(ApiError)}
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            for keyword in node.keywords:
                value = keyword.value
                if (
                    node.func.id in known
                    and keyword.arg == "code"
                    and isinstance(value, ast.Constant)
                ):
                    found.setdefault(node.func.id, []).append(str(value.value))
    return found


def spelt(parameter: Any) -> str:
    """Return an option as it is typed, or an argument as help shows it."""
    name: str = parameter.opts[0]
    return name if name.startswith("-") else name.upper()


def annotation(hint: Any) -> str:
    """Say the annotation of a command's parameter, in words."""
    names = {str: "text", int: "whole number", float: "number", bool: "flag", Path: "path"}
    if hint in names:
        return names[hint]
    inner = [one for one in typing.get_args(hint) if one is not type(None)]
    if typing.get_origin(hint) in (list, tuple):
        return f"{annotation(inner[0])}, repeatable"
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{one}`" for one in inner)
    return annotation(inner[0])


def cli_default(parameter: Any) -> str:
    """Say an option's default."""
    if parameter.required:
        return "required"
    default = parameter.default
    return "none" if default is None or default is False else f"`{default}`"


def doc(of: type) -> str:
    """Return a docstring as one paragraph per paragraph, code names left as they are."""
    # References to the design notes mean nothing to a reader of these pages.
    text = re.sub(r"\s*\((?:see )?DESIGN section \d+\)", "", inspect.cleandoc(of.__doc__ or ""))
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )
