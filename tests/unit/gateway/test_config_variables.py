"""Variables of the environment and files of their own in gateway.yaml: put in, or refused."""

import pytest

from gateway.config import ConfigError, load_config, parse_config
from tests.unit.gateway.test_config import EXAMPLE, MODEL, refusal


def test_environment_variables_are_put_in():
    text = MODEL.replace("http://a:8000", "${SCHEME}://${HOST}:8000") + "profile: ${P}x\n"
    config = parse_config(text, "g.yaml", {"SCHEME": "https", "HOST": "b", "P": "p"})
    assert config.models[0].backends[0].root_url == "https://b:8000"
    assert config.profile == "px"


def test_a_variables_value_is_not_expanded_again_and_is_no_yaml():
    text = EXAMPLE.replace("policy: fair-ols", "")
    config = parse_config(text, "g.yaml", {"PHI3_KEY": "${HOME}: [x"})
    assert config.models[0].backends[0].api_key == "${HOME}: [x"


def test_a_missing_variable_is_named_with_its_path():
    said = refusal(EXAMPLE)
    assert said == "models[0].backends[0].api_key: the environment variable PHI3_KEY is not set"
    assert refusal("profile: ${NO_SUCH}\nmodels: []").startswith("profile: the environment")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("context", "4096", 4096),
        ("context", "4096\n", 4096),
        ("name", "8000", "8000"),
        ("name", "no", "no"),
    ],
)
def test_a_variable_has_the_type_of_its_key(key, value, found):
    line = {"context": "context: 100", "name": "name: m"}[key]
    text = MODEL.replace(line, f"{key}: ${{V}}")
    model = parse_config(text, "g.yaml", {"V": value}).models[0]
    assert getattr(model, key) == found


def test_numbers_booleans_and_nothing_from_the_environment():
    text = MODEL + (
        "learning: {enabled: '${LEARN}'}\nreference_load: ${LOAD}\npolicy: ${POLICY:-hybrid}\n"
        "timeouts: {drain_seconds: '${DRAIN:-12}'}\nmeter_secret: ${SECRET:-}\n"
        "presets: {eco: {weights: {energy: '${ENERGY}'}}}\n"
    )
    environ = {"LEARN": "False", "LOAD": "3.5", "ENERGY": "1e0"}
    config = parse_config(text, "g.yaml", environ)
    assert config.learning.enabled is False
    assert (config.reference_load, config.policy) == (3.5, "hybrid")
    assert config.timeouts.drain_seconds == 12.0
    assert config.meter_secret is None
    assert config.presets["eco"].weights.energy == 1.0
    assert parse_config(text, "g.yaml", environ | {"LOAD": "auto"}).reference_load == "auto"


@pytest.mark.parametrize(
    ("line", "environ", "said"),
    [
        (
            "timeouts: {drain_seconds: '${D}'}", {"D": "soon"},
            "timeouts.drain_seconds: what ${D} is set to is not a number",
        ),
        (
            "retry: {max_attempts: '${N}'}", {"N": "2.5"},
            "retry.max_attempts: what ${N} is set to is not a whole number",
        ),
        (
            "learning: {enabled: '${L:-maybe}'}", {},
            "learning.enabled: what ${L:-maybe} is set to is not true or false",
        ),
        ("profile: $HOME/p.json", {}, "profile: $HOME is not put in: write ${HOME}"),
        ("cors_origins: ['${A}', $B]", {"A": "x"}, "cors_origins[1]: $B is not put in"),
        ("meter_secret: ${S}", {"S": ""}, "meter_secret: is empty"),
        ("meter_secret: /etc/hostname", {}, "meter_secret: is the path of a file; write meter_se"),
        ("meter_secret: a\nmeter_secret_file: b", {}, "meter_secret and meter_secret_file exclude"),
        ("weights: {energy: ${E}}", {"E": "1"}, "not YAML"),
    ],
)  # fmt: skip
def test_a_variable_that_cannot_be_used_is_told_with_its_path(line, environ, said):
    assert refusal(MODEL + line + "\n", environ).startswith(said)


def test_an_unquoted_variable_in_a_flow_mapping_is_told_how_to_be_written():
    assert refusal(MODEL + "weights: {energy: ${E}}").endswith("; quote ${…} inside { } or [ ]")


def test_keys_in_files_of_their_own(tmp_path):
    path = tmp_path / "gateway.yaml"
    text = MODEL.replace('8000"}', '8000", api_key_file: key}') + "meter_secret_file: meter\n"
    path.write_text("\ufeff" + text, encoding="utf-8")
    (tmp_path / "key").write_text("k3y\n")
    (tmp_path / "meter").write_text("s3cret")
    config = load_config(path)
    assert (config.models[0].backends[0].api_key, config.meter_secret) == ("k3y", "s3cret")
    (tmp_path / "key").write_text("two\nlines\n")
    with pytest.raises(ConfigError, match="http://a:8000: api_key: must be printable ASCII"):
        load_config(path)


@pytest.mark.parametrize("key", ["two\nlines", "naïve", "tab\t", " x"])
def test_a_key_that_is_no_header_is_refused_without_being_shown(key):
    said = refusal(EXAMPLE, {"PHI3_KEY": key})
    assert said == "models[0].backends[0]: api_key: must be printable ASCII, it is sent as a header"
