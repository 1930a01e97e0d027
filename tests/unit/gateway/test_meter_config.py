"""meter.yaml: what is accepted, and that every refusal says where in the file it is."""

import pytest

from gateway import meter_config
from gateway.meter_config import MeterConfig, load_meter_config
from gateway.structured import ConfigError, parse_struct

EXAMPLE = """
secret: ${METER_SECRET}
hz: 50
ledgers:
  - name: gpu0
    source: nvml
    devices: [0, GPU-5f3c]
    backends:
      - url: http://127.0.0.1:8000/v1
        names: [phi3-0:8000]
      - url: http://127.0.0.1:8001
  - name: far
    source: dcgm
    url: http://prometheus:9090
"""


def refusal(text, environ=None):
    with pytest.raises(ConfigError, match=r"^m\.yaml: ") as caught:
        parse_struct(text, "m.yaml", MeterConfig, environ or {})
    return str(caught.value).removeprefix("m.yaml: ")


def test_a_whole_file():
    config = parse_struct(EXAMPLE, "m.yaml", MeterConfig, {"METER_SECRET": "s3cret"})
    assert (config.secret, config.hz) == ("s3cret", 50)
    near, far = config.ledgers
    assert near.devices == (0, "GPU-5f3c")
    assert [backend.root_url for backend in near.backends] == [
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8001",
    ]
    assert near.backends[0].names == ("phi3-0:8000",)
    assert (far.source, far.url) == ("dcgm", "http://prometheus:9090")


def test_what_may_be_left_out():
    config = parse_struct("ledgers: [{}]", "m.yaml", MeterConfig)
    assert config == MeterConfig()
    assert config.ledgers[0].source == "auto"
    assert config.hz == 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secrets: x", "unknown key 'secrets'; did you mean 'secret'?"),
        ("ledgers: [{device: [0]}]", "ledgers[0]: unknown key 'device'; did you mean 'devices'?"),
        (
            "ledgers: [{backends: [{url: 'http://a:1', name: x}]}]",
            "ledgers[0].backends[0]: unknown key 'name'; did you mean 'names'?",
        ),
        ("ledgers: []", "ledgers: "),
        ("hz: 0", "hz: "),
        ("hz: 1000", "hz: "),
        ("ledgers: [{name: 'a b'}]", "ledgers[0]: name: letters, digits"),
        ("ledgers: [{name: a}, {name: a}]", "ledgers[1].name: 'a' is listed twice"),
        ("ledgers: [{source: nvidia}]", "ledgers[0].source: "),
        ("ledgers: [{source: simulator}]", "ledgers[0]: url: the source simulator needs one"),
        ("ledgers: [{source: dcgm}]", "ledgers[0]: url: the source dcgm needs one"),
        ("ledgers: [{url: 'http://a:1'}]", "ledgers[0]: url: the source auto has none"),
        ("ledgers: [{backends: [{url: a}]}]", "ledgers[0].backends[0]: url: 'a' must look like"),
        (
            "{ledgers: [{name: a, backends: [&b {url: 'http://a:1'}]}, {name: b, backends: [*b]}]}",
            "ledgers[1].backends[0]: 'http://a:1' is listed twice",
        ),
        ('secret: "two\\nlines"', "secret: must be printable ASCII"),
        ('secret: "naïve"', "secret: must be printable ASCII"),
        ("secret: ''", "secret: is empty; leave the key out"),
        ("secret: s\nsecret_file: f", "secret and secret_file exclude each other"),
        (
            "ledgers: [{source: dcgm, url: 'http://p:9090/api/v1/query'}]",
            "ledgers[0]: url: 'http://p:9090/api/v1/query' ends in a page's path; write http://p:9090",
        ),
        (
            "ledgers: [{backends: [{url: 'http://a:1/v1/chat/completions'}]}]",
            "ledgers[0].backends[0]: url: 'http://a:1/v1/chat/completions' ends in an endpoint's",
        ),
        ("secret: ${NONE}", "secret: the environment variable NONE is not set"),
        ("[]", "must be a mapping"),
    ],
)
def test_a_refusal_says_where_and_what(text, said):
    assert refusal(text).startswith(said)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_meter_config(tmp_path / "none.yaml")


def test_every_key_is_in_the_schema():
    schema = meter_config.build_json_schema()
    assert set(schema["$defs"]["MeterConfig"]["properties"]) == set(MeterConfig.__struct_fields__)


def test_numbers_and_booleans_from_the_environment():
    text = "hz: ${HZ}\nallow_unauthenticated: ${OPEN}\nledgers: [{devices: ['${GPU}']}]"
    config = parse_struct(text, "m.yaml", MeterConfig, {"HZ": "12.5", "OPEN": "true", "GPU": "0"})
    assert (config.hz, config.allow_unauthenticated) == (12.5, True)
    assert config.ledgers[0].devices == ("0",)


def test_a_secret_in_a_file(tmp_path):
    path = tmp_path / "meter.yaml"
    (tmp_path / "secret").write_text("s3cret\r\n")
    path.write_text("secret_file: secret\n")
    assert load_meter_config(path).secret == "s3cret"
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(ConfigError, match="secret: is empty"):
        load_meter_config(path)
    (tmp_path / "secret").unlink()
    with pytest.raises(ConfigError, match=r"secret_file: .*secret: No such file"):
        load_meter_config(path)
