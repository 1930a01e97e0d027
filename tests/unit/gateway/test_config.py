"""gateway.yaml: what is accepted, and that every refusal says where in the file it is."""

import pytest

from gateway.config import ConfigError, GatewayConfig, load_config, parse_config
from gateway.scheduling.decision import PRESETS, MetricWeights

# DESIGN section 9, as it stands there.
EXAMPLE = """
models:
  - name: phi-3-mini                 # what clients ask for
    profile: phi-3-mini              # key in the profile file
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
MODEL = """
models:
  - name: m
    context: 100
    backends: [{url: "http://a:8000"}]
"""


def refusal(text, environ=None):
    with pytest.raises(ConfigError, match=r"^g\.yaml: ") as caught:
        parse_config(text, "g.yaml", environ or {})
    return str(caught.value).removeprefix("g.yaml: ")


def test_the_contracts_example():
    config = parse_config(EXAMPLE, "g.yaml", {"PHI3_KEY": "s3cret"})
    (model,) = config.models
    (backend,) = model.backends
    assert (model.name, model.profile, model.context) == ("phi-3-mini", "phi-3-mini", 4096)
    assert model.served_name == "microsoft/Phi-3-mini-4k-instruct"
    assert model.capabilities == ("chat", "completions", "tools")
    assert (backend.root_url, backend.api_key) == ("http://phi3-0:8000", "s3cret")
    assert backend.meter == "http://phi3-0:9464"
    assert config.policy == "fair-ols"
    assert config.weights.to_metric_weights() == MetricWeights(0.5, 0.3, 0.2)
    assert config.preset_weights()["eco"] == MetricWeights(0.0, 1.0, 0.0)


def test_the_defaults_are_the_contracts():
    config = parse_config(MODEL, "g.yaml", {})
    assert (config.policy, config.profile) == ("relative", None)
    assert config.weights.to_metric_weights() == MetricWeights.from_values(0.5, 0.3, 0.2)
    health, retry = config.health, config.retry
    assert (health.eject_after_failures, health.eject_seconds, health.eject_max_seconds) == (
        5,
        30.0,
        300.0,
    )
    assert health.probe_seconds == 1.0
    assert (retry.budget_ratio, retry.budget_start, retry.budget_max) == (0.2, 3.0, 10.0)
    assert config.models[0].deployment_label == "m"


def test_the_built_in_presets():
    third = pytest.approx(1 / 3)
    assert PRESETS["accuracy"] == MetricWeights.from_values(0.8, 0.1, 0.1)
    assert PRESETS["energy"].energy == pytest.approx(0.8)
    assert PRESETS["time"].time == pytest.approx(0.8)
    balanced = PRESETS["balanced"]
    assert (balanced.accuracy, balanced.energy, balanced.time) == (third, third, third)
    assert set(parse_config(MODEL, "g.yaml", {}).preset_weights()) == set(PRESETS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping that has `models`"),
        ("- a", "must be a mapping that has `models`"),
        ("models: [", "not YAML"),
        ("policy: hybrid", "Object missing required field `models`"),
        ("models: []", "models: Expected `array` of length >= 1"),
        ("models: {}", "models: Expected `array`, got `object`"),
        (MODEL.replace("context: 100", "context: lots"), "models[0].context: Expected `int`"),
        (MODEL.replace("context: 100", "context: 1"), "models[0].context: Expected `int` >= 2"),
        (MODEL.replace("name: m", "name: no"), "models[0].name: Expected `str`, got `bool`"),
        (MODEL.replace("name: m", "title: m"), "models[0]: "),
        (MODEL.replace('[{url: "http://a:8000"}]', "[]"), "models[0].backends: "),
        (MODEL.replace('url: "http://a:8000"', "url: 8000"), "models[0].backends[0].url: "),
        (MODEL.replace("http://a:8000", "a:8000"), "models[0].backends[0]: url: 'a:8000' must"),
        (MODEL.replace("http://a:8000", "ftp://a"), "models[0].backends[0]: url: 'ftp://a' must"),
        (MODEL.replace("http://a:8000", "http://:8000"), "models[0].backends[0]: url: "),
        (MODEL.replace("http://a:8000", "http://a:99999"), "models[0].backends[0]: url: "),
        (MODEL.replace("http://a:8000", "http://[::1"), "models[0].backends[0]: url: "),
        (MODEL.replace("http://a:8000", "http://u:p@a"), "models[0].backends[0]: url: must not"),
        (MODEL.replace("http://a:8000", "http://a/?q=1"), "models[0].backends[0]: url: must not"),
        (MODEL.replace("name: m", "name: auto"), "models[0]: name: 'auto' is the gateway's own"),
        (MODEL.replace("name: m", "name: 'auto:x'"), "models[0]: name: letters, digits"),
        (
            MODEL + "policy: fastest",
            "policy: 'fastest' is not a policy (known: relative, fair-ols, hybrid)",
        ),
        (MODEL + "weights: {energy: -1}", "weights.energy: Expected `float` >= 0.0"),
        (MODEL + "weights: {energy: .inf}", "weights: weights must be finite"),
        (MODEL + "weights: {}", "weights: weights must not all be zero"),
        (MODEL + "weights: {accuracy: 0, energy: 0}", "weights: weights must not all be zero"),
        (MODEL + "presets: {Eco: {weights: {energy: 1}}}", "presets.Eco: lower-case"),
        (MODEL + "timeouts: {stall_seconds: 0}", "timeouts.stall_seconds: Expected `float` > 0.0"),
        (MODEL + "retry: {max_attempts: 0}", "retry.max_attempts: Expected `int` >= 1"),
        (MODEL + "health: {eject_seconds: soon}", "health.eject_seconds: Expected `float`"),
        (MODEL + "limits: {max_body_bytes: 1}", "limits.max_body_bytes: Expected `int` >= 1024"),
    ],
)
def test_an_error_names_its_path(text, said):
    assert refusal(text).startswith(said)


def test_an_error_in_a_preset_names_the_preset():
    said = refusal(MODEL + "presets: {eco: {weights: {energy: -1}}}")
    assert said.startswith("presets.eco.weights.energy: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MODEL + "polcy: hybrid", "unknown key 'polcy'; did you mean 'policy'?"),
        (MODEL + "    contxt: 3", "models[0]: unknown key 'contxt'; did you mean 'context'?"),
        (
            MODEL.replace("{url:", "{ur1: x, url:"),
            "models[0].backends[0]: unknown key 'ur1'; did you mean 'url'?",
        ),
        (
            MODEL + "timeouts: {drain_second: 3}",
            "timeouts: unknown key 'drain_second'; did you mean 'drain_seconds'?",
        ),
        (
            MODEL + "weights: {enery: 3}",
            "weights: unknown key 'enery'; did you mean 'energy'?",
        ),
        (MODEL + "weights: {zzz: 3}", "weights: unknown key 'zzz' (known: accuracy, energy, time)"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(text, said):
    assert refusal(text) == said


def test_an_unknown_key_in_a_preset_has_a_suggestion():
    said = refusal(MODEL + "presets: {eco: {weights: {enregy: 1}}}")
    assert "unknown key 'enregy'; did you mean 'energy'?" in said


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MODEL + "policy: hybrid\npolicy: fair-ols", "policy"),
        (MODEL.replace("context: 100", "context: 100\n    context: 200"), "context"),
        (MODEL + "weights: {energy: 1, time: 1, energy: 2}", "energy"),
    ],
)
def test_a_key_given_twice_is_an_error_with_its_line(text, key):
    said = refusal(text)
    assert f"key '{key}' is given twice" in said
    assert "line " in said


TWO = """
models:
  - {name: m, context: 100, backends: [{url: "http://a:8000"}]}
  - {name: NAME, context: 100, backends: [{url: "http://c:8000"}, {url: "URL"}]DEPLOYMENT}
"""


def two(name="n", url="http://b:8000", deployment=""):
    return TWO.replace("NAME", name).replace("URL", url).replace("DEPLOYMENT", deployment)


def test_a_model_may_have_several_deployments():
    config = parse_config(two(name="m", deployment=", deployment: h100"), "g.yaml", {})
    assert [model.deployment_label for model in config.models] == ["m", "h100"]


@pytest.mark.parametrize("deployment", ["", ", deployment: m"])
def test_a_deployment_listed_twice(deployment):
    said = refusal(two(name="m", deployment=deployment))
    assert said.startswith("models[1]: 'm' is listed twice; give each a `deployment`")


@pytest.mark.parametrize("url", ["http://a:8000", "http://a:8000/", "http://a:8000/v1/"])
def test_a_url_listed_twice(url):
    said = refusal(two(name="m", url=url, deployment=", deployment: h100"))
    assert said == "models[1].backends[1].url: http://a:8000 is listed twice"


def test_one_address_may_serve_several_models():
    config = parse_config(two(url="http://a:8000/v1"), "g.yaml", {})
    assert {model.backends[-1].root_url for model in config.models} == {"http://a:8000"}


@pytest.mark.parametrize("key", ["api_key", "meter"])
def test_one_address_has_one_key_and_one_meter(key):
    text = two(url="http://a:8000").replace(
        '{url: "http://a:8000"}]}\n', f'{{url: "http://a:8000", {key}: "http://x:1"}}]}}\n', 1
    )
    assert refusal(text) == (
        f"models[1].backends[1].{key}: differs from what another model says of http://a:8000; "
        "one server has one"
    )


@pytest.mark.parametrize("url", ["http://a:8000/v1", "http://a:8000/v1/", "http://a:8000/"])
def test_a_backends_root(url):
    config = parse_config(MODEL.replace("http://a:8000", url), "g.yaml", {})
    assert config.models[0].backends[0].root_url == "http://a:8000"
    prefixed = parse_config(MODEL.replace("http://a:8000", "http://a/vllm/v1"), "g.yaml", {})
    assert prefixed.models[0].backends[0].root_url == "http://a/vllm"


def test_a_file_that_refers_to_itself_is_refused():
    with pytest.raises(ConfigError):
        parse_config("models: &m [*m]", "g.yaml", {})


@pytest.mark.parametrize("text", ["1: x\n" + MODEL, "? [a, b]\n: c\n", "2020-01-01: x\n" + MODEL])
def test_keys_that_are_no_text_are_refused(text):
    refusal(text)


def test_files(tmp_path):
    path = tmp_path / "gateway.yaml"
    with pytest.raises(ConfigError, match=r"gateway\.yaml: No such file"):
        load_config(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_config(path)
    path.write_text(MODEL)
    assert load_config(path).profile is None
    assert isinstance(load_config(path), GatewayConfig)


def test_relative_paths_start_at_the_files_folder(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(MODEL + "profile: p.json\nlog: {decisions: logs/d.jsonl}\n")
    config = load_config(path)
    assert config.profile == str(tmp_path / "p.json")
    assert config.log.decisions == str(tmp_path / "logs" / "d.jsonl")
    path.write_text(MODEL + "profile: /etc/p.json\nlog: {decisions: /var/d.jsonl}\n")
    config = load_config(path)
    assert (config.profile, config.log.decisions) == ("/etc/p.json", "/var/d.jsonl")
