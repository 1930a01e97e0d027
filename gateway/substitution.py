"""`${NAME}` in the strings of a file -> the environment's values, as a shell would put them in.

- `${NAME}` is the variable's value; not set is an error. `${NAME:-default}` takes the default where
  it is not set or empty, `${NAME-default}` where it is not set; a default may hold variables.
  `${NAME:?message}` and `${NAME?message}` say what is wrong. `$$` is a dollar.
- Where NAME is not set and NAME_FILE is, the value is the text of the file that NAME_FILE names.
- Line ends at the end of a value are dropped: files and `base64` put them there.
- A value is never expanded again.
- What another program would have replaced (`$NAME`, `{{ name }}`, `$(NAME)`, `os.environ/NAME`,
  `%NAME%`) is an error: passed on, it would be sent to a server as a key.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Union

from gateway.bounded_file import read_bounded_file

_MOST_FILE_BYTES: Final = 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-?]")
_FOREIGN = (
    re.compile(r"\{\{.*?\}\}"),
    re.compile(r"\$\([A-Za-z_]\w*\)"),
    re.compile(r"^os\.environ[/.\[].*"),
    re.compile(r"^(?:env|ENV):[A-Za-z_]\w*$"),
    re.compile(r"^%[A-Za-z_]\w*%$"),
)

_Part = Union[str, "_Variable"]


class SubstitutionError(ValueError):
    """A string whose variables cannot be put in; the message says why.

    `unquoted` says it without a word of the string, for where that may be a secret.
    """

    def __init__(self, message: str, unquoted: str = "") -> None:
        super().__init__(message)
        self.unquoted = unquoted or message


class Substituted(NamedTuple):
    """What a string with variables came to; what type it has, the key says that it is for.

    `written` is the string as it stands in the file. `may_be_missing`: it is one variable whose
    default is empty, and came out empty.
    """

    text: str
    written: str
    may_be_missing: bool = False


def substitute_variables(written: str, environ: Mapping[str, str]) -> str | Substituted:
    """Return a string with its variables put in; plain text where there are none.

    Raises SubstitutionError.
    """
    for pattern in _FOREIGN:
        if found := pattern.search(written):
            why = "is not put in: a variable of the environment is ${NAME}"
            raise SubstitutionError(f"{found[0][:80]!r} {why}", f"another program's variable {why}")
    if "$" not in written:
        return written
    parts = _StringParser(written).parse_parts(nested=False)
    text = _join_values(parts, environ)
    variables = [part for part in parts if isinstance(part, _Variable)]
    if not variables:
        return text
    (first, *more) = variables
    alone = not more and len(parts) == 1
    return Substituted(text, written, alone and first.default == () and not text)


class _Variable(NamedTuple):
    """One `${…}`; `default` is None where it has none, and the message where `operator` has ?."""

    name: str
    operator: str = ""
    default: tuple[_Part, ...] | None = None


class _StringParser:
    """Reads one string from left to right."""

    def __init__(self, written: str) -> None:
        self._written = written
        self._at = 0

    def parse_parts(self, *, nested: bool) -> tuple[_Part, ...]:
        """Return what comes up to the end, or up to the brace that closes a default."""
        parts: list[_Part] = []
        while self._at < len(self._written):
            letter = self._written[self._at]
            if nested and letter == "}":
                break
            self._at += 1
            parts.append(self._parse_dollar() if letter == "$" else letter)
        return tuple(parts)

    def _parse_dollar(self) -> _Part:
        """Parse what follows a dollar; one that nothing can follow stands for itself."""
        if self._written.startswith("$", self._at):
            self._at += 1
            return "$"
        if self._written.startswith("{", self._at):
            self._at += 1
            return self._parse_variable()
        if name := _NAME.match(self._written, self._at):
            raise SubstitutionError(
                f"${name[0]} is not put in: write ${{{name[0]}}}, or $$ for a dollar itself",
                "a name behind a dollar is not put in: write ${NAME}, or $$ for a dollar itself",
            )
        return "$"

    def _parse_variable(self) -> _Variable:
        begun = self._at - 2
        if name := _NAME.match(self._written, self._at):
            self._at = name.end()
            operator = _OPERATOR.match(self._written, self._at)
            default = None
            if operator:
                self._at = operator.end()
                default = self.parse_parts(nested=True)
            if self._written.startswith("}", self._at):
                self._at += 1
                return _Variable(name[0], operator[0] if operator else "", default)
        shown = self._written[begun : begun + 40]
        why = "is no variable: write ${NAME} or ${NAME:-default}, or $$ for a dollar"
        raise SubstitutionError(f"{shown!r} {why}", f"what follows a dollar {why}")


def _join_values(parts: tuple[_Part, ...], environ: Mapping[str, str]) -> str:
    return "".join(part if isinstance(part, str) else _find_value(part, environ) for part in parts)


def _find_value(variable: _Variable, environ: Mapping[str, str]) -> str:
    value = _read_variable(variable.name, environ)
    wants_text = variable.operator.startswith(":")
    if value is not None and (value or not wants_text):
        return value
    state = "is empty" if value is not None else "is not set"
    if variable.default is None:
        raise SubstitutionError(f"the environment variable {variable.name} is not set")
    default = _join_values(variable.default, environ)
    if variable.operator.endswith("?"):
        why = f": {default}" if default else ""
        raise SubstitutionError(f"the environment variable {variable.name} {state}{why}")
    return default


def _read_variable(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable's value, or that of the file which NAME_FILE names; None without either."""
    value, named = environ.get(name), environ.get(f"{name}_FILE")
    if value is not None and named:
        raise SubstitutionError(
            f"the environment variables {name} and {name}_FILE are both set; unset one"
        )
    if value is not None:
        return value.rstrip("\r\n")
    return read_secret_file(Path(named), f"{name}_FILE") if named else None


def read_secret_file(path: Path, key: str) -> str:
    """Return a file's text without the line end; `key` names it in errors.

    Raises SubstitutionError.
    """
    try:
        return read_bounded_file(path, _MOST_FILE_BYTES).decode().rstrip("\r\n")
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "not UTF-8 text"
    raise SubstitutionError(f"{key}: {path}: {why}")
