"""The reference pages, each a generator of its paragraphs."""

# ruff: noqa: INP001 - a script's helper

import inspect
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import reading
import typer
from msgspec import inspect as types

import calibration.cli
from gateway import cli, config, console, meter_config, profile
from gateway.api import openapi
from gateway.library import shipped
from gateway.library import table as library_rows
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.decision import PRESETS
from gateway.service.client import errors, headers
from gateway.service.client.api_error import ApiError


def config_page() -> Iterator[str]:
    """Every key of gateway.yaml, one table per struct."""
    yield "# Configuration: gateway.yaml"
    yield (
        "YAML. `${NAME}` in any string is replaced by the environment variable NAME, and it is an "
        "error where that is not set; `${NAME:-default}` has a default, `${NAME:?message}` an "
        "error of its own, `$$` is a dollar. Where NAME is not set and NAME_FILE is, it is the "
        "text of the file that NAME_FILE names, without its line end. A key that takes a number or "
        "true and false takes it from a variable too; an empty default (`${NAME:-}`) leaves a key "
        "out. `$NAME`, `{{ name }}` and `os.environ/NAME` are errors. "
        "A key that is not listed here is an error. "
        "`joulegate check --config gateway.yaml` validates a file and its profile; "
        "`joulegate check --schema` prints the JSON Schema."
    )
    yield from _keys(config.GatewayConfig)
    yield "## Built-in presets"
    yield "A preset is asked for as `auto:NAME`. One of the same name in `presets` replaces it."
    yield reading.table(
        ("preset", "accuracy", "energy", "time"),
        (
            (f"`auto:{name}`", f"{w.accuracy:.3g}", f"{w.energy:.3g}", f"{w.time:.3g}")
            for name, w in PRESETS.items()
        ),
    )


def meter_page() -> Iterator[str]:
    """Every key of meter.yaml."""
    yield "# Configuration: meter.yaml"
    yield (
        "What `joulegate meter --config` takes; its options say the same of one ledger. YAML "
        "with `${NAME}` as in [gateway.yaml](config.md)."
    )
    yield from _keys(meter_config.MeterConfig)


def _keys(root: type[msgspec.Struct]) -> Iterator[str]:
    """Every key of a file, one table per struct."""
    for path, struct in reading.structs("", root):
        yield f"## {path or 'Top level'}"
        yield reading.doc(struct)
        found = types.type_info(struct)
        assert isinstance(found, types.StructType)  # noqa: S101 - narrows for mypy
        yield reading.table(
            ("key", "type", "default"),
            (
                (f"`{field.encode_name}`", reading.words(field.type), reading.default(field))
                for field in found.fields
            ),
        )


def headers_page() -> Iterator[str]:
    """Every header that steers, and every header that answers."""
    yield "# Headers"
    for title, table in (("Request", headers.REQUEST), ("Response", headers.RESPONSE)):
        yield f"## {title}"
        yield reading.table(
            ("header", "meaning"), ((f"`{name}`", text) for name, text in table.items())
        )


def errors_page() -> Iterator[str]:
    """Every error class with its status, type and codes."""
    yield "# Errors"
    example = msgspec.json.format(errors.UnknownModel("…").encode_json(), indent=2).decode()
    yield (
        "Every error has OpenAI's shape. Within a stream that has begun it is one `data:` frame, "
        "after which the connection closes without `[DONE]`."
    )
    yield f"```json\n{example}\n```"
    yield f"```text\n{inspect.cleandoc(errors.__doc__ or '')}\n```"
    given = reading.codes_given()
    rows = []
    for error in reading.tree(ApiError):
        # A class with a constructor of its own takes its fields from the backend's answer.
        copied = error is not ApiError and "__init__" in vars(error)
        codes = [] if copied or error.code is None else [error.code]
        codes += [code for code in given.get(error.__name__, ()) if code not in codes]
        sent = {} if copied else dict(error("").build_headers())
        rows.append(
            (
                f"`{error.__name__}`",
                "the backend's" if copied else str(error.status),
                "the backend's" if copied else f"`{error.type}`",
                ", ".join(f"`{code}`" for code in codes) or ("varies" if copied else "null"),
                sent.get(b"x-should-retry", b"not sent").decode(),
                reading.doc(error).split("\n\n", maxsplit=1)[0],
            )
        )
    yield reading.table(("error", "status", "type", "code", "`x-should-retry`", "when"), rows)


def cli_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Command line"
    yield str(cli.app.info.help)
    yield (
        f"Exit codes: {console.OK} done, {console.FAILED} failed, {console.UNUSABLE} cannot be "
        "used as given."
    )
    for app in (cli.app, calibration.cli.app):
        for title, command, hints in _commands(app, "joulegate"):
            parameters = [one for one in command.params if one.name in hints]
            if not parameters:
                continue  # handed on by name to the other application, which describes it
            yield f"## {title}"
            yield str(command.help)
            yield reading.table(
                ("argument or option", "type", "default", "meaning"),
                (
                    (
                        f"`{reading.spelt(parameter)}`",
                        reading.annotation(hints[parameter.name]),
                        reading.cli_default(parameter),
                        parameter.help or "",
                    )
                    for parameter in parameters
                ),
            )


def _commands(app: typer.Typer, before: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield each command as it is typed, the command, and its parameters' types."""
    group: Any = typer.main.get_command(app)
    for info in app.registered_commands:
        callback: Any = info.callback
        command = group.commands[info.name or callback.__name__]
        yield f"{before} {command.name}", command, typing.get_type_hints(callback)
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{before} {inner.name}")


def api_page() -> Iterator[str]:
    """Every path, from the OpenAPI document that the gateway serves."""
    document = openapi.build_document()
    yield "# API"
    yield (
        "The paths of [openapi.json](openapi.json), which a running gateway serves at "
        "`GET /schema/openapi.json`."
    )
    yield reading.table(
        ("method", "path", "what", "answers"),
        (
            (
                method.upper(),
                f"`{path}`",
                operation.get("summary", ""),
                ", ".join(operation["responses"]),
            )
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ),
    )


def profile_page() -> Iterator[str]:
    """The numbers of the shipped profile."""
    shipped = profile.load_profile(None)
    yield "# The shipped profile"
    yield (
        f"Version `{shipped.version}`. What it is worth, and how to replace it: "
        "[the profile](../profile.md). With i tokens in and o new tokens out:"
    )
    for quantity, unit in (("joules", "J"), ("seconds", "s")):
        yield f"## {quantity.capitalize()}"
        rows = []
        for name, model in shipped.models.items():
            fitted: profile.CostRegression = getattr(model, quantity)
            rows.append(
                (
                    name,
                    fitted.form.value,
                    " ".join(
                        f"{value:+.4g}{term}"
                        for value, term in zip(
                            fitted.coefficients, _terms(fitted.form), strict=True
                        )
                    ),
                    f"{fitted.n:,}",
                    f"{fitted.r2:.3f}",
                    f"{fitted.rmse:.4g} {unit}",
                    "; ".join(
                        f"{regressor.replace('_', ' ')} {low:g} to {high:g}"
                        for regressor, (low, high) in fitted.fitted_range.items()
                    ),
                )
            )
        yield reading.table(
            ("model", "form", f"{quantity} =", "n", "R²", "RMSE", "fitted over"), rows
        )
    yield "## Accuracy, tokens and output"
    lines = []
    for name, model in shipped.models.items():
        lines.append(
            (
                name,
                f"{model.accuracy.default:g}",
                f"{model.tokens.ratio:g}",
                f"{model.tokens.per_dense_char:g}",
                model.to_output_model().write_formula(),
            )
        )
    dense = "and per digit or punctuation mark"
    yield reading.table(
        ("model", "accuracy", "own tokens per tiktoken token", dense, "expected o ="), lines
    )
    yield "## Provenance"
    for name, model in shipped.models.items():
        yield f"### {name}"
        yield reading.table(
            ("field", "value"), ((key, str(value)) for key, value in model.provenance.items())
        )


def _terms(form: RegressionForm) -> tuple[str, ...]:
    product = " o(i+o/2)" if form.reads_context else " i·o"
    return ("", " i", " o", product, " o·load")[: form.term_count]


def library_table() -> str:
    """Return every entry of the library with its leave-one-out errors, and those over all."""
    library = shipped.load_library()
    entries = ((f"`{row.name}`", *row.cells[1:]) for row in library_rows.list_rows(library))
    overall = "\n".join(f"- {line}" for line in library_rows.describe_errors(library))
    return f"{reading.table(library_rows.HEAD, entries)}\n\n{overall}"


def openapi_file() -> str:
    """Return the OpenAPI document as a file."""
    encoded = msgspec.json.encode(openapi.build_document())
    return msgspec.json.format(encoded, indent=2).decode() + "\n"
