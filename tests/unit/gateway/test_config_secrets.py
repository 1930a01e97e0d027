"""A secret in a config, wherever it stands and whatever is wrong with it, is in no error."""

import copy

import pytest
import yaml

from gateway.config import load_config, parse_config
from gateway.keys_file import read_keys
from gateway.meter_config import load_meter_config
from gateway.structured import ConfigError

SECRET = "skPl4nted"
WHOLE = {"models": [{"name": "a", "context": 9, "backends": [{"url": "http://b:1"}]}]}
BACKEND = ("models", 0, "backends", 0)
URL_KEYS = [
    (*BACKEND, "url"),
    (*BACKEND, "meter"),
    ("carbon", "prometheus", "url"),
    ("tracing", "endpoint"),
]
URLS = [
    f"http://u:{SECRET}@h:1",
    f"http://{SECRET}@h:1",
    f"http://u:{SECRET}@h:port",
    f"http://u:{SECRET}@h:1/v1/chat/completions",
    f"http://u:{SECRET} x@h",
    f"http://u:{SECRET}/x@h:1",
    f"http://u:{SECRET}@[::1",
    f"ftp://u:{SECRET}@h",
    f"u:{SECRET}@h:8000",
    f"http://u:pa${SECRET}@h:1",
    f"http://h:1?key={SECRET}",
    f"http://h:port?key={SECRET}",
    f"http://h:port#{SECRET}",
]
SECRET_KEYS = [
    (*BACKEND, "api_key"),
    ("meter_secret",),
    ("response_id_secret",),
    ("admin", "token"),
    ("carbon", "prometheus", "token"),
    ("keys", "store", "url"),
]
SECRETS = [
    f"é{SECRET}",
    f" {SECRET}",
    f"{SECRET}\n x",
    f"x${SECRET}",
    f"${{{SECRET}!}}",
    f"x${{A-{SECRET}",
    f"x{{{{{SECRET}}}}}",
    f"$({SECRET})x",
    f"os.environ/{SECRET}",
    f"%{SECRET}%",
    f"env:{SECRET}",
    [SECRET],
    {"a": SECRET},
]
BESIDE = {
    "admin": {"port": 0},
    "carbon": {"prometheus": {"url": "http://h:1"}},
    "keys": {"file": "k"},
}
AS_YAML = [
    "*{}",
    "!{}",
    "&{} [",
    "!!{} x",
    "!{}!x y",
    "!!int {}",
    "!!float {}",
    "!!timestamp {}",
    "!!bool {}",
    "!<{}",
    "%{}",
    "@{}",
    "`{}",
    "'{}",
    '"{}',
    '"\\q{}"',
    "[{}",
    "{{{}",
    "!!binary é{}",
    "x: {}",
]


def place(path, value):
    """A whole config with one value in one place."""
    tree = copy.deepcopy(WHOLE)
    if path[0] in BESIDE:
        tree[path[0]] = copy.deepcopy(BESIDE[path[0]])
    at = tree
    for key in path[:-1]:
        at = at[key] if isinstance(key, int) else at.setdefault(key, {})
    at[path[-1]] = value
    return yaml.safe_dump(tree, allow_unicode=True)


def check(text, environ=None):
    """The file is refused, and nothing of the secret is said."""
    with pytest.raises(ConfigError) as refused:
        parse_config(text, "gateway.yaml", environ or {})
    assert SECRET not in str(refused.value)
    assert SECRET[3:] not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("path", URL_KEYS, ids=lambda path: path[-1])
def test_a_url_with_credentials_is_not_repeated(path, url):
    check(place(path, url))


@pytest.mark.parametrize("secret", SECRETS, ids=repr)
@pytest.mark.parametrize("path", SECRET_KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_secret_that_cannot_be_used_is_not_repeated(path, secret):
    check(place(path, secret))


@pytest.mark.parametrize("written", AS_YAML)
def test_a_secret_that_yaml_takes_for_something_else_is_not_repeated(written, tmp_path):
    value = written.format(SECRET)
    check(
        f"models:\n- name: a\n  context: 9\n  backends:\n  - url: http://b\n    api_key: {value}\n"
    )
    for reader, key in ((load_meter_config, "secret"), (read_keys, "keys")):
        path = tmp_path / "other.yaml"
        path.write_text(f"{key}: {value}\n")
        with pytest.raises(ConfigError) as refused:
            reader(path)
        assert SECRET not in str(refused.value)


def test_a_variable_in_the_wrong_place_is_not_repeated():
    check(place(("models", 0, "context"), "${KEY}"), {"KEY": SECRET})
    check(place((*BACKEND, "url"), "http://u:${KEY}@h:1"), {"KEY": SECRET})
    check(place((*BACKEND, "api_key"), "${KEY}"), {"KEY": f"{SECRET}\r\nx: y"})


@pytest.mark.parametrize("text", ["2024-13-01", "!!int x", "!!float ''", "!!timestamp x"])
def test_what_only_looks_like_a_date_or_a_number_is_said_with_its_place(text):
    with pytest.raises(
        ConfigError, match=r"not YAML: it looks like \w+ and is none; quote it, line 3"
    ):
        parse_config(f"models:\n- name: a\n  profile: {text}\n", "g", {})


def test_a_secrets_file_that_holds_none_is_not_repeated(tmp_path):
    (tmp_path / "key").write_text(f"{SECRET}\nsecond line\n")
    (tmp_path / "pem").write_text(
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"
    )
    tls = {"cert_file": "pem", "key_file": "pem"}
    for path, value in (
        ((*BACKEND, "api_key_file"), "key"),
        (("meter_secret_file",), "key"),
        (("serving_tls",), tls),
        (("tls",), tls),
        (("tls",), {"ca_file": "key"}),
    ):
        file = tmp_path / "gateway.yaml"
        file.write_text(place(path, value))
        with pytest.raises(ConfigError) as refused:
            load_config(file)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize("password", ["{}/x", "{}#x", "{}?x", "[{}"])
@pytest.mark.parametrize("in_file", [False, True])
def test_a_password_that_breaks_the_stores_url_is_not_repeated(tmp_path, password, in_file):
    url = f"redis://u:{password.format(SECRET)}@h:1/0"
    (tmp_path / "url").write_text(url)
    store = {"url_file": "url"} if in_file else {"url": url}
    file = tmp_path / "gateway.yaml"
    file.write_text(place(("keys", "store"), store))
    with pytest.raises(ConfigError, match=r"url: is not a URL; .*%2F") as refused:
        load_config(file)
    assert SECRET not in str(refused.value)
