"""The same gateway, driven by OpenAI's JavaScript SDK (sdk.mjs does the asking)."""

import pytest

from tests.e2e.fleet import FLEET
from tests.e2e.watch import Watch


@pytest.fixture(scope="module")
def seen(javascript):
    return javascript("sdk.mjs")


def test_models(seen):
    assert {"auto", "auto:accuracy", "auto:eco", *FLEET} <= set(seen["models"])


def test_unary(seen):
    for asked, answer in seen["unary"].items():
        assert answer["model"] == answer["header"]
        assert answer["model"] == (asked if asked in FLEET else answer["model"])
        assert answer["tokens"] == 6
        assert answer["request_id"]
    assert seen["unary"]["auto:accuracy"]["model"] == "mistral-7b"


def test_streams(seen):
    for asked, answer in seen["streams"].items():
        assert answer["model"] == (asked if asked in FLEET else answer["model"])
        assert answer["text"]
        assert answer["finish"] == "length"
        assert answer["tokens"] == 6


def test_steering_and_explaining(seen):
    assert seen["steered"] == {"model": "mistral-7b", "candidates": 4}


def test_tools(seen):
    assert seen["tool"]["name"] == "switch"
    assert seen["tool"]["arguments"]["state"] in {"on", "off"}


def test_completions(seen):
    assert seen["completion"]["object"] == "text_completion"
    assert seen["completion"]["model"] in FLEET


def test_errors(seen):
    for name in ("unknown", "unknownStream"):
        assert seen[name]["class"] == "NotFoundError"
        assert seen[name]["code"] == "model_not_found"
    assert 400 <= seen["embeddings"]["status"] < 500
    assert "x-joulegate-weight-time" in seen["header"]["message"]


async def test_an_aborted_stream(seen, backends):
    assert seen["aborted"] == 3
    watch = Watch(backends["smollm2-135m"])
    await watch.until(lambda: watch.running == 0)
