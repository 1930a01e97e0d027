"""A dataclass of options is a command: its parameters, their defaults, and one object built."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from gateway.command_options import build_options, list_parameters, take_options


@dataclass(frozen=True, slots=True)
class Limits:
    most: Annotated[int, typer.Option(min=1, help="At most.")] = 5


@dataclass(frozen=True, slots=True)
class Options:
    file: Annotated[str, typer.Argument(help="What to read.")]
    name: Annotated[list[str], typer.Option(help="May be repeated.")] = field(default_factory=list)
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
    limits: Limits = field(default_factory=Limits)
    argv: str | None = "not an option"


@pytest.fixture
def seen():
    return []


@pytest.fixture
def run(seen):
    app = typer.Typer()

    @app.command()
    @take_options(Options)
    def work(options: Options) -> int:
        """Do the work."""
        seen.append(options)
        return 3 if options.as_json else 0

    return lambda *words: CliRunner().invoke(app, words)


def test_options_are_built_as_typed(run, seen):
    assert run("a.csv", "--name", "x", "--name", "y", "--most", "7").exit_code == 0
    assert seen == [Options("a.csv", ["x", "y"], limits=Limits(7))]


def test_what_is_not_typed_has_the_dataclass_s_default(run, seen):
    assert run("a.csv").exit_code == 0
    assert seen == [Options("a.csv")]


def test_the_exit_code_is_what_the_function_returns(run):
    assert run("a.csv", "--json").exit_code == 3


def test_typer_checks_bounds_and_what_is_required(run, seen):
    assert run("a.csv", "--most", "0").exit_code == 2
    assert run().exit_code == 2
    assert run("a.csv", "--argv", "x").exit_code == 2
    assert seen == []


def test_help_is_the_function_s_docstring(run):
    assert "Do the work." in run("--help").output


def test_parameters_stand_in_the_order_of_the_fields():
    assert [one.name for one in list_parameters(Options)] == ["file", "name", "as_json", "most"]


def test_a_list_of_none_is_an_empty_one():
    given = {"file": "a", "name": None, "as_json": False, "most": 1}
    assert build_options(Options, given).name == []


def test_the_call_itself_has_what_was_typed_beyond_the_options():
    @dataclass(frozen=True, slots=True)
    class PassedOn:
        context: typer.Context
        port: Annotated[int, typer.Option(help="Where.")] = 1

    app, seen = typer.Typer(), []

    @app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    @take_options(PassedOn)
    def work(options: PassedOn) -> int:
        seen.append((options.port, options.context.args))
        return 0

    assert CliRunner().invoke(app, ["--port", "2", "--dtype", "half"]).exit_code == 0
    assert seen == [(2, ["--dtype", "half"])]
