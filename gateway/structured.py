"""YAML text -> frozen structs, with ${NAME} put in; every error says where in the file it is.

What a file may hold is said by the structs alone; this is how any such file is read.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import Struct

from gateway.bounded_file import read_bounded_file
from gateway.substitution import SubstitutionError, read_secret_file, substitute_variables
from gateway.variable_types import give_types

_Struct = TypeVar("_Struct", bound=Struct)
_MOST_CONFIG_BYTES = 16 * 1024 * 1024


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says where and what."""


def read_struct(path: Path, struct: type[_Struct]) -> _Struct:
    """Read a file into a struct. Raises ConfigError."""
    return parse_struct(read_config_text(path), str(path), struct)


def read_config_text(path: Path) -> str:
    """Return a file's text. Raises ConfigError."""
    try:
        return read_bounded_file(path, _MOST_CONFIG_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: {reason}") from None


def read_secret(value: str | None, file: str | None, folder: Path, key: str) -> str | None:
    """Return a secret given by itself, or as the file that holds it. Raises ConfigError."""
    if file is None:
        return value
    try:
        secret = read_secret_file(folder / file, f"{key}_file")
        check_secret(key, secret)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return secret


def parse_struct(
    text: str,
    origin: str,
    struct: type[_Struct],
    environ: Mapping[str, str] = os.environ,
    *,
    named: Mapping[str, type[Struct]] = {},
) -> _Struct:
    """Validate a text; `origin` names it in errors. Raises ConfigError.

    `named` has the keys whose values are mappings of names to structs: these are looked at one by
    one first, because msgspec does not name the key of a mapping in its errors.
    """
    try:
        tree = yaml.load(text, Loader=_StrictYamlLoader)  # noqa: S506 - a SafeLoader, stricter on keys
    except (yaml.YAMLError, RecursionError) as error:
        hint = "; quote ${…} inside { } or [ ]" if "${" in text else ""
        raise ConfigError(f"{origin}: not YAML: {_explain_yaml_error(error)}{hint}") from None
    if not isinstance(tree, dict):
        first = msgspec.structs.fields(struct)[0].encode_name
        raise ConfigError(f"{origin}: must be a mapping that has `{first}`")
    try:
        tree = _substitute_environment(tree, "", origin, environ)
        tree = _type_variables(tree, struct, origin)
        for key, kind in named.items():
            if isinstance(tree.get(key), dict):
                for name, value in tree[key].items():
                    _convert_tree(value, kind, f"{key}.{name}", origin)
        return _convert_tree(tree, struct, "", origin)
    except RecursionError:
        raise ConfigError(f"{origin}: refers to itself") from None


def _explain_yaml_error(error: Exception) -> str:
    """Say what is wrong and where, without the line itself: a secret may stand in it."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return type(error).__name__
    problem = getattr(error, "problem", None) or "not understood"
    problem = _QUOTED_BY_YAML.sub(r"\1", problem)
    return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"


_QUOTED_BY_YAML = re.compile(r"\b(alias|anchor|handle|tag) (['\"]).*\2")
"""What a value that begins with `*`, `&` or `!` is taken for."""


def build_json_schema(struct: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a file that holds this struct."""
    schema = msgspec.json.schema(struct)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def check_secret_or_file(key: str, secret: str | None, file: str | None) -> None:
    """Raise ValueError unless one of the two at most is given, and the secret can be sent."""
    if secret is not None:
        check_secret(key, secret)
        if file is not None:
            raise ValueError(f"{key} and {key}_file exclude each other")


def check_secret(key: str, secret: str) -> None:
    """Raise ValueError unless it can be sent as a header."""
    if not secret.strip():
        raise ValueError(f"{key}: is empty; leave the key out where there is none")
    if secret.startswith("/") and Path(secret).is_file():
        raise ValueError(
            f"{key}: is the path of a file; write {key}_file, or ${{NAME}} and set NAME_FILE"
        )
    if not (secret and secret.isascii() and secret.isprintable() and secret == secret.strip()):
        raise ValueError(f"{key}: must be printable ASCII, it is sent as a header")


class _StrictYamlLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, and says where a value is that is none."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 - whatever int(), date() and their like raise
            kind = str(node.tag).rpartition(":")[2]
            looks = f"it looks like {kind} and is none; quote it" if kind in _YAML_KINDS else None
            raise yaml.constructor.ConstructorError(None, None, looks, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep=deep)


_YAML_KINDS = ("timestamp", "int", "float", "bool", "binary")


def _substitute_environment(value: Any, path: str, origin: str, environ: Mapping[str, str]) -> Any:
    """Put variables into every string; what held one is a Substituted until `_give_types`."""
    if isinstance(value, dict):
        return {
            key: _substitute_environment(item, f"{path}.{key}".lstrip("."), origin, environ)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _substitute_environment(item, f"{path}[{index}]", origin, environ)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str):
        return value
    try:
        return substitute_variables(value, environ)
    except SubstitutionError as error:
        said = error.unquoted if _may_be_secret(path, value) else str(error)
        raise ConfigError(f"{origin}: {path}: {said}") from None


def _may_be_secret(path: str, value: str) -> bool:
    """Whether a text is a secret, or has one in it, that must not be quoted: not a mere name."""
    secret = path.rpartition(".")[2] in _SECRETS or path.endswith("store.url") or "@" in value
    return secret and not _NAME_ALONE.fullmatch(value)


_SECRETS = frozenset({"api_key", "token", "secret", "meter_secret", "response_id_secret"})
_NAME_ALONE = re.compile(
    r"\$[A-Z_][A-Z0-9_]*|\$\([A-Z_][A-Z0-9_]*\)|os\.environ[/.][A-Z_][A-Z0-9_]*|env:[A-Z_][A-Z0-9_]*"
    r"|%[A-Z_][A-Z0-9_]*%|\{\{[\w .]*\}\}"
)


def _type_variables(tree: Any, struct: type[Struct], origin: str) -> Any:
    try:
        return give_types(tree, msgspec.inspect.type_info(struct))
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _convert_tree(tree: Any, struct: type[_Struct], prefix: str, origin: str) -> _Struct:
    try:
        return msgspec.convert(tree, struct)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{origin}: {_explain_validation_error(str(error), struct, prefix)}"
        ) from None


def _explain_validation_error(message: str, root: type[Struct], prefix: str) -> str:
    """Turn msgspec's `what - at `$.path`` into `path: what`, with a suggestion for a typo."""
    what, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").lstrip(".")
    full = ".".join(part for part in (prefix, path) if part)
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        what = f"unknown key {unknown[1]!r}"
        known = _list_keys_at(path, root)
        close = difflib.get_close_matches(unknown[1], known, n=1)
        what += f"; did you mean {close[0]!r}?" if close else f" (known: {', '.join(known)})"
    return f"{full}: {what}" if full else what


def _list_keys_at(path: str, root: type[Struct]) -> list[str]:
    """Return the keys that the struct at a path such as `models[0].backends[1]` has."""
    struct: Any = msgspec.inspect.type_info(root)
    for name in re.findall(r"\.?([A-Za-z_]\w*)|\[", path):
        if isinstance(struct, msgspec.inspect.StructType):
            struct = next((field.type for field in struct.fields if field.name == name), struct)
        elif isinstance(struct, msgspec.inspect.VarTupleType):
            struct = struct.item_type
    if not isinstance(struct, msgspec.inspect.StructType):
        return []
    return [field.name for field in struct.fields]
