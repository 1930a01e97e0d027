"""Paths that are not there: what was meant, and what there is."""

import pytest

from gateway.api.paths import describe_missing_path

SERVED = {
    "/": ["GET"],
    "/metrics": ["GET"],
    "/v1/chat/completions": ["POST"],
    "/v1/completions": ["POST"],
    "/v1/models": ["GET"],
}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/models", "/v1/models"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/Models", "/v1/models"),
        ("/completions", "/v1/completions"),
        ("/v1/metrics", "/metrics"),
    ],
)
def test_what_was_meant(path, meant):
    said = describe_missing_path(path, SERVED)
    assert said.startswith(f"there is no {path} here (did you mean {meant}?); there are: GET /, ")


@pytest.mark.parametrize("path", ["/favicon.ico", "/v1/images/generations", "/" + "x" * 9000])
def test_what_is_like_nothing(path):
    said = describe_missing_path(path, SERVED)
    assert said == (
        f"there is no {path[:200]} here; there are: GET /, GET /metrics, "
        "POST /v1/chat/completions, POST /v1/completions, GET /v1/models"
    )
