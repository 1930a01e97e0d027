"""Variables of the environment are text; this gives each the type that its key takes.

By the key, not by the looks: a key that takes text gets `8000` and `no` as text, one that takes a
number gets the number. Pure.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import inspect

from gateway.substitution import Substituted

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLAGS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def give_types(value: Any, wanted: inspect.Type | None, path: str = "") -> Any:
    """Return a tree with each Substituted as its key takes it; None is for a key nobody knows.

    Raises ValueError, its message beginning with the key's path.
    """
    kinds = _list_alternatives(wanted)
    if isinstance(value, dict):
        return {
            key: give_types(item, _find_member(kinds, key), f"{path}.{key}".lstrip("."))
            for key, item in value.items()
        }
    if isinstance(value, list):
        item_type = _find_item(kinds)
        return [give_types(item, item_type, f"{path}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, Substituted):
        return value
    try:
        return _convert_text(value, kinds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _convert_text(value: Substituted, kinds: list[inspect.Type]) -> Any:
    if value.may_be_missing and any(isinstance(kind, inspect.NoneType) for kind in kinds):
        return None
    if any(isinstance(kind, inspect.StrType) or _has_literal(kind, value.text) for kind in kinds):
        return value.text
    text = value.text.strip()
    wanted = []
    for kind in kinds:
        for type_, (name, convert) in _CONVERSIONS.items():
            if isinstance(kind, type_):
                wanted.append(name)
                if (found := convert(text)) is not None:
                    return found
    if wanted:
        # Not what it is: it may be a secret that was put in the wrong place.
        raise ValueError(f"what {value.written} is set to is not {' or '.join(wanted)}")
    return value.text


def _has_literal(kind: inspect.Type, text: str) -> bool:
    return isinstance(kind, inspect.LiteralType) and text in kind.values


def _parse_whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _parse_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _parse_flag(text: str) -> bool | None:
    return _FLAGS.get(text.lower())


_CONVERSIONS: Final[dict[type, tuple[str, Callable[[str], Any]]]] = {
    inspect.IntType: ("a whole number", _parse_whole),
    inspect.FloatType: ("a number", _parse_number),
    inspect.BoolType: ("true or false", _parse_flag),
}


def _list_alternatives(wanted: inspect.Type | None) -> list[inspect.Type]:
    """Return the types of a union, or the one there is."""
    if isinstance(wanted, inspect.Metadata):
        return _list_alternatives(wanted.type)
    if isinstance(wanted, inspect.UnionType):
        return [kind for member in wanted.types for kind in _list_alternatives(member)]
    return [] if wanted is None else [wanted]


def _find_member(kinds: Iterable[inspect.Type], key: object) -> inspect.Type | None:
    for kind in kinds:
        if isinstance(kind, inspect.DictType):
            return kind.value_type
        if isinstance(kind, inspect.StructType):
            return next((field.type for field in kind.fields if field.encode_name == key), None)
    return None


def _find_item(kinds: Iterable[inspect.Type]) -> inspect.Type | None:
    for kind in kinds:
        if isinstance(kind, (inspect.VarTupleType, inspect.ListType)):
            return kind.item_type
    return None
