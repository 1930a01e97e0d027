"""The README and the pages in docs/ name only what the code has."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

import calibration.cli
from gateway import config, profile
from gateway.cli import app
from gateway.scheduling.decision import PRESETS
from gateway.service.client import headers
from gateway.service.request import steering
from gateway.service.request.endpoint import EndpointKind
from gateway.service.request.steering import RequestSteering

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import series  # noqa: E402 - a script's helper, not a package

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HEADERS = {*headers.REQUEST, *headers.RESPONSE}
METRICS = {one.name for one in (*series.of_gateway(), *series.of_meter())}
COMMANDS = {
    **typer.main.get_command(app).commands,
    **typer.main.get_command(calibration.cli.app).commands,
}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text, language):
    """Return the fenced blocks of one language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Return every `joulegate …` of a page: in shell blocks, and between backticks."""
    shell = "\n".join([*blocks(text, "sh"), *blocks(text, "console")]).replace("\\\n", " ")
    found = re.findall(r"^(?:\$ )?(joulegate .*)$", shell, re.MULTILINE)
    return found + re.findall(r"`(joulegate [a-z][^`]*)`", text)


def anchor(heading):
    """Return a heading's anchor as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("text", blocks(README, "yaml"))
def test_a_yaml_example_is_a_valid_config(text):
    assert config.parse_config(text, "README.md", {"VLLM_KEY": "k", "METER_SECRET": "m"}).models


def test_there_are_yaml_examples():
    assert len(blocks(README, "yaml")) >= 2


def test_the_body_example_steers():
    (body,) = (block for block in blocks(README, "json") if '"messages"' in block)
    member = json.dumps(json.loads(body)["joulegate"]).encode()
    default = RequestSteering(PRESETS["balanced"], "hybrid")
    wishes = steering.resolve_steering({}, member, default)
    assert wishes.policy == "fair-ols"
    assert wishes.explain


@every_page
def test_json_examples_are_json(page):
    for block in blocks(page.read_text(encoding="utf-8"), "json"):
        json.loads(block)


def test_the_profile_example_is_a_valid_profile():
    (block,) = blocks((ROOT / "docs/profile.md").read_text(encoding="utf-8"), "json")
    assert profile.parse_profile(block.encode(), "docs/profile.md").models


@every_page
def test_every_command_and_option_exists(page):
    for line in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)[1:]
        if words == ["…"]:
            continue
        command = COMMANDS[words[0]]
        if hasattr(command, "commands") and len(words) > 1:
            command = command.commands[words[1]]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        options = {word for word in words[1:] if word.startswith("--")}
        assert options <= known, line


def test_every_subcommand_that_the_readme_uses_is_found():
    assert {"route", "serve", "check", "backend"} <= {line.split()[1] for line in commands(README)}


@every_page
def test_relative_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        if fragment:
            text = linked.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, target


@every_page
def test_headers_exist(page):
    named = set(re.findall(r"x-joulegate-[a-z-]+[a-z]", page.read_text(encoding="utf-8")))
    assert named <= HEADERS


@every_page
def test_metrics_exist(page):
    named = set(re.findall(r"\bjoulegate_[a-z0-9_]+[a-z]", page.read_text(encoding="utf-8")))
    assert named <= METRICS


def test_the_readme_has_every_request_header():
    assert all(f"`{name}`" in README for name in headers.REQUEST)


def test_the_readme_has_every_preset_and_endpoint():
    assert all(f"`auto:{name}`" in README for name in PRESETS)
    assert EndpointKind.CHAT.url_path in README


def test_the_readme_quotes_the_shipped_fit():
    fits = [
        fit.r2
        for model in profile.load_profile(None).models.values()
        for fit in (model.seconds, model.joules)
    ]
    assert f"R² is {min(fits):.2f} to {max(fits):.2f}" in README


def test_the_readme_quotes_what_the_route_command_prints():
    (line,) = (line for line in commands(README) if "--prompt" in line)
    argv = [sys.executable, "-m", "gateway.cli", *shlex.split(line)[1:]]
    printed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\n".join(row.rstrip() for row in printed.splitlines()) in README


@every_page
def test_no_page_points_at_what_users_do_not_have(page):
    text = page.read_text(encoding="utf-8")
    assert "DESIGN" not in text
    assert "shared/" not in text


def test_contributing_names_files_that_exist():
    for name in re.findall(r"`((?:gateway|backends|tests|calibration)/[\w/.]*)`", CONTRIBUTING):
        assert (ROOT / name).exists(), name


def test_contributing_names_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"make ([a-z0-9-]+)", CONTRIBUTING):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def table_rows(text):
    """Return the cells of every row of a page's tables."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def walk_hops(text):
    """Return each walk's hops by its heading: (file, function or Class.method)."""
    _, _, walks = text.partition("\n## Three walks through the code\n")
    parts = re.split(r"\n### (.*)\n", walks.partition("\n## ")[0])
    return {
        heading: [
            (row[0].strip("`"), row[1].strip("`"))
            for row in table_rows(body)
            if row[0].startswith("`")
        ]
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def defines(path, function):
    """Whether a file defines a function, or a method as `Class.method`."""
    if not path.is_file():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    *owner, name = function.split(".")
    for one in owner:
        body = [
            member
            for found in body
            if isinstance(found, ast.ClassDef) and found.name == one
            for member in found.body
        ]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(found, functions) and found.name == name for found in body)


def test_contributing_walks_through_the_code_three_times():
    walks = walk_hops(CONTRIBUTING)
    assert list(walks) == ["A chat request", "A request's joules", "One recalibration"]
    assert all(len(hops) >= 10 for hops in walks.values())


@pytest.mark.parametrize(
    ("file", "function"),
    [hop for hops in walk_hops(CONTRIBUTING).values() for hop in hops],
)
def test_a_hop_of_a_walk_exists(file, function):
    assert defines(ROOT / file, function), f"{file} does not define {function}"


@pytest.mark.parametrize(
    ("file", "function"),
    [
        ("gateway/no_such_file.py", "run"),
        ("gateway/scheduling/decide.py", "no_such_function"),
        ("gateway/scheduling/decide.py", "RoutingCandidate.make_decision"),
        ("gateway/scheduling/decide.py", "RoutingCandidate"),
    ],
)
def test_a_hop_that_does_not_exist_is_noticed(file, function):
    assert not defines(ROOT / file, function)


def check_steps():
    """Return the steps of `make check`, without the virtual environment and a trailing dot."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return [
        re.sub(r"^\$\(BIN\)/(python )?", "", line.strip()).removesuffix(" .")
        for line in recipe.splitlines()
    ]


def test_contributing_lists_the_steps_of_make_check():
    _, _, text = CONTRIBUTING.partition("`make check` runs, in this order:")
    listed = [row[0].strip("`") for row in table_rows(text.partition("\n`.venv")[0])]
    assert listed[2:] == check_steps()


def test_pre_commit_runs_the_steps_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (repo,) = hooks["repos"]
    entries = [
        re.sub(r"^\.venv/bin/(python )?", "", hook["entry"]).removesuffix(" --force-exclude")
        for hook in repo["hooks"]
    ]
    assert entries == check_steps()
