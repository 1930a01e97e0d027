"""Write the chart's README.md and values.schema.json from values.yaml, and copy files it carries.

`python helm/generate.py` writes them; with `--check` it writes nothing, lists what is stale and
exits 1. The comment above a key is its documentation and a line `@schema {…}` in it what the
default does not show; a key without documentation, or whose type cannot be seen, is an error.
"""

# ruff: noqa: INP001, T201 - a script

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapes
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
COPIED = {
    "files/falcon-7b.jinja": ROOT / "backends/vllm/templates/falcon-7b.jinja",
    "files/published.json": ROOT / "gateway/profiles/published.json",
}
"""A chart can read only files of its own folder."""

_MARK = "@schema"
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


class ValuesError(ValueError):
    """A key of values.yaml that lacks its documentation or its type."""


@dataclass(frozen=True)
class Key:
    """One key of values.yaml: where it is, what is said of it, its default, its annotation."""

    path: str
    text: str
    value: Any
    annotation: shapes.Schema
    children: "tuple[Key, ...]"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    def schema(self) -> shapes.Schema:
        """Return its JSON Schema. Raises ValuesError where the default does not show the type."""
        said = {"description": self.text} if self.text else {}
        if "$ref" in self.annotation:
            return self.annotation
        if isinstance(self.value, dict):
            if self.children:
                return {**said, **closed(self.children)}
            if "additionalProperties" not in self.annotation:
                raise ValuesError(f"{self.path}: an object needs keys or {_MARK}")
            return {**said, "type": "object", **self.annotation}
        if isinstance(self.value, list):
            if "items" not in self.annotation:
                raise ValuesError(f"{self.path}: a list needs {_MARK} with `items`")
            return {**said, "type": "array", **self.annotation}
        if "enum" in self.annotation:
            return {**said, **self.annotation}
        if self.value is None:
            raise ValuesError(f"{self.path}: null shows no type")
        kind = _TYPES[type(self.value)]
        if kind == "integer" and "exclusiveMinimum" in self.annotation:
            kind = "number"
        return {**said, "type": kind, **self.annotation}


def closed(keys: tuple[Key, ...]) -> shapes.Schema:
    """Return the schema of an object that has these keys and no others."""
    properties = {key.name: key.schema() for key in keys}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def read(text: str) -> tuple[Key, ...]:
    """Return the keys of values.yaml in their order. Raises ValuesError."""
    return _keys(yaml.compose(text), yaml.safe_load(text), "", text.splitlines())


def _keys(node: Any, value: dict[str, Any], path: str, lines: list[str]) -> tuple[Key, ...]:
    found = []
    for name_node, child in node.value:
        name = name_node.value
        full = f"{path}.{name}".lstrip(".")
        said, annotation = _comment(lines, name_node.start_mark)
        if not said:
            raise ValuesError(f"{full}: has no comment")
        # An annotated object is one value; its defaults are no keys of their own.
        opens = isinstance(value[name], dict) and not annotation
        children = _keys(child, value[name], full, lines) if opens and value[name] else ()
        found.append(Key(full, said, value[name], annotation, children))
    return tuple(found)


def _comment(lines: list[str], mark: Any) -> tuple[str, shapes.Schema]:
    """Return the prose and the annotation of the comment right above a key."""
    start = mark.line
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    said = [line.strip().removeprefix("#").strip() for line in lines[start : mark.line]]
    annotation: shapes.Schema = {}
    for line in said:
        if line.startswith(_MARK):
            annotation |= yaml.safe_load(line.removeprefix(_MARK))
    return " ".join(line for line in said if not line.startswith(_MARK)), annotation


def schema_file(keys: tuple[Key, ...]) -> str:
    """Return the text of values.schema.json."""
    top = closed(keys)
    # Helm hands a parent chart's to this one, whatever they are.
    top["properties"]["global"].pop("additionalProperties")
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Joulegate chart",
        "$comment": "Written by helm/generate.py; change values.yaml instead.",
        **top,
        "definitions": shapes.definitions(),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def readme(keys: tuple[Key, ...]) -> str:
    """Return the text of README.md."""
    chart = yaml.safe_load((HERE / "Chart.yaml").read_text(encoding="utf-8"))
    return "\n\n".join(_paragraphs(chart, keys)) + "\n"


def _paragraphs(chart: dict[str, Any], keys: tuple[Key, ...]) -> Iterator[str]:
    yield "<!-- Written by helm/generate.py; change values.yaml instead. -->"
    yield "# The Joulegate chart"
    yield f"{chart['description']}. Needs Kubernetes {chart['kubeVersion'].removesuffix('-0')}."
    yield "How to install and run it, step by step: [docs/kubernetes.md](../docs/kubernetes.md)."
    yield (
        "```sh\n"
        "helm install joulegate ./helm --namespace joulegate --create-namespace\n"
        "helm install demo ./helm --values helm/ci/demo-values.yaml   # simulated models, no GPU\n"
        "```"
    )
    yield "A key that is not listed here is refused, and so is a value of the wrong type."
    yield "## General"
    yield _table(key for key in keys if not key.children)
    for key in keys:
        if key.children:
            yield f"## {key.name}"
            yield key.text
            yield _table(_leaves(key.children), under=f"{key.path}.")


def _leaves(keys: tuple[Key, ...]) -> Iterator[Key]:
    for key in keys:
        yield from _leaves(key.children) if key.children else (key,)


def _table(keys: Any, under: str = "") -> str:
    rows = ["| key | what | default |", "| --- | --- | --- |"]
    for key in keys:
        default = json.dumps(key.value, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{key.path.removeprefix(under)}` | {key.text} | `{default}` |")
    return "\n".join(rows)


def files() -> dict[str, str]:
    """Return every written file of the chart: path within it, and text. Raises ValuesError."""
    keys = read((HERE / "values.yaml").read_text(encoding="utf-8"))
    copies = {name: path.read_text(encoding="utf-8") for name, path in COPIED.items()}
    return {"values.schema.json": schema_file(keys), "README.md": readme(keys), **copies}


def main(arguments: list[str]) -> int:
    """Write or check every file; return the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python helm/generate.py [--check]", file=sys.stderr)
        return 2
    try:
        made = files()
    except ValuesError as error:
        print(f"helm/values.yaml: {error}", file=sys.stderr)
        return 1
    stale = [
        name
        for name, text in made.items()
        if not (HERE / name).exists() or (HERE / name).read_text(encoding="utf-8") != text
    ]
    if not arguments:
        for name in stale:
            (HERE / name).write_text(made[name], encoding="utf-8")
    if stale:
        what = "stale" if arguments else "written"
        print(f"{what}: " + ", ".join(f"helm/{name}" for name in stale))
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
