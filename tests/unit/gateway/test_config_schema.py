"""`joulegate check --schema` prints a JSON Schema that tells good files from bad ones."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli import app
from tests.json_schema import has_type

EXAMPLE = """
models:
  - name: phi-3-mini
    profile: phi-3-mini
    served_name: microsoft/Phi-3-mini-4k-instruct
    context: 4096
    capabilities: [chat, completions, tools]
    backends:
      - url: http://phi3-0:8000
        api_key: ${PHI3_KEY}
        meter: http://phi3-0:9464
profile: profile.json
policy: fair-ols
weights: {accuracy: 0.5, energy: 0.3, time: 0.2}
presets: {eco: {weights: {energy: 1}}}
"""
# What says nothing about validity.
NOTES = {"$schema", "$defs", "title", "description", "default", "examples"}


class Validator:
    """The part of JSON Schema 2020-12 that the printed schema uses; any other keyword fails."""

    def __init__(self, root):
        self.root = root

    def valid(self, schema, value):
        return all(self.holds(key, wanted, schema, value) for key, wanted in schema.items())

    def holds(self, key, wanted, schema, value):  # noqa: PLR0911, PLR0912, C901 - one line a keyword
        if key in NOTES:
            return True
        match key:
            case "$ref":
                return self.valid(self.resolve(wanted), value)
            case "anyOf":
                return any(self.valid(option, value) for option in wanted)
            case "type":
                return has_type(value, wanted)
            case "enum":
                return value in wanted
            case "required":
                return not isinstance(value, dict) or set(wanted) <= set(value)
            case "properties":
                members = value if isinstance(value, dict) else {}
                return all(
                    self.valid(wanted[name], members[name]) for name in wanted.keys() & members
                )
            case "additionalProperties":
                members = value if isinstance(value, dict) else {}
                others = [
                    members[name] for name in members.keys() - schema.get("properties", {}).keys()
                ]
                if isinstance(wanted, bool):
                    return wanted or not others
                return all(self.valid(wanted, other) for other in others)
            case "items":
                return not isinstance(value, list) or all(self.valid(wanted, v) for v in value)
            case "minItems":
                return not isinstance(value, list) or len(value) >= wanted
            case "minimum":
                return not isinstance(value, int | float) or value >= wanted
            case "exclusiveMinimum":
                return not isinstance(value, int | float) or value > wanted
            case "maximum":
                return not isinstance(value, int | float) or value <= wanted
        pytest.fail(f"a keyword this test does not know: {key}")
        return False

    def resolve(self, reference):
        found = self.root
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found


@pytest.fixture(scope="module")
def schema():
    result = CliRunner().invoke(app, ["check", "--schema"])
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def accepts(schema):
    validator = Validator(schema)
    return lambda value: validator.valid(schema, value)


def example(text=EXAMPLE):
    return yaml.safe_load(text)


def test_it_is_a_schema_of_the_newest_draft(schema):
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_contracts_example_is_valid(accepts):
    assert accepts(example())
    assert accepts({"models": [{"name": "m", "context": 10, "backends": [{"url": "http://a"}]}]})


def test_every_reference_leads_somewhere(schema):
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "')[1:]}
    assert references
    for reference in references:
        assert Validator(schema).resolve(reference)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("policy: fair-ols", "polcy: fair-ols"),
        ("policy: fair-ols", "policy: fastest"),
        ("context: 4096", "context: lots"),
        ("context: 4096", "context: 1"),
        ("context: 4096", "contxt: 4096"),
        ("- name: phi-3-mini", "- title: phi-3-mini"),
        ("[chat, completions, tools]", "[chat, singing]"),
        ("[chat, completions, tools]", "chat"),
        ("- url: http", "- uri: http"),
        ("weights: {accuracy: 0.5", "weights: {speed: 0.5"),
        ("weights: {accuracy: 0.5", "weights: {accuracy: -0.5"),
        ("{weights: {energy: 1}}", "{weight: {energy: 1}}"),
        ("models:", "model:"),
    ],
)
def test_a_bad_file_is_not(accepts, old, new):
    assert old in EXAMPLE
    assert not accepts(example(EXAMPLE.replace(old, new)))


def test_no_models_is_not_valid(accepts):
    assert not accepts({"models": []})
    assert not accepts({})
