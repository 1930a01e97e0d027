"""A command's options declared once: the fields of a dataclass are the parameters that typer sees.

A field is an option where its type is `Annotated[…, typer.Option(…)]` (or Argument), and stands for
the options of another such dataclass where its type is one; a `typer.Context` is the call itself,
with the words typed beyond the options. Any other field is none of the command line's. A list that
may be empty reads as one without a default, as typer's own do.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from inspect import Parameter, Signature
from typing import Annotated, Any, Optional, TypeVar, get_args, get_origin, get_type_hints

import typer

T = TypeVar("T")


def take_options(kind: type[T]) -> Callable[[Callable[[T], int]], Callable[..., None]]:
    """Make a command of a function that takes its options as one object and returns the exit code.

    Name and docstring stay the function's.
    """

    def decorate(work: Callable[[T], int]) -> Callable[..., None]:
        @wraps(work)
        def callback(**given: Any) -> None:
            raise typer.Exit(code=work(build_options(kind, given)))

        found: Any = callback
        found.__signature__ = Signature(list(list_parameters(kind)))
        found.__annotations__ = {one.name: one.annotation for one in list_parameters(kind)}
        return callback

    return decorate


def list_parameters(kind: type[Any]) -> Iterator[Parameter]:
    """Yield the parameters of a class of options, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from list_parameters(hints[field.name])
        elif hint is typer.Context:
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, annotation=hint)
        elif get_origin(hint) is Annotated:
            default = Parameter.empty if field.default is dataclasses.MISSING else field.default
            if field.default_factory is not dataclasses.MISSING:  # a list, empty unless given
                bare, *said = get_args(hint)
                hint, default = Annotated[(Optional[bare], *said)], None  # noqa: UP045 - a value
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def build_options(kind: type[T], given: Mapping[str, Any]) -> T:
    """Return the options of a class from typer's values by parameter."""
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type] # T is a dataclass
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = build_options(hints[field.name], given)
        elif hint is typer.Context:
            values[field.name] = given[field.name]
        elif get_origin(hint) is Annotated:
            value = given[field.name]
            empty = value is None and field.default_factory is not dataclasses.MISSING
            values[field.name] = [] if empty else value
    return kind(**values)
