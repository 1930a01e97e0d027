"""Addresses in a config: a server's root, and not an endpoint's path."""

import pytest

from gateway.server_url import (
    check_meter_url,
    check_prometheus_url,
    check_server_url,
    server_root,
)
from tests.integration.vllm_paths import VLLM_PATHS


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("http://a:8000/v1/chat/completions", "http://a:8000"),
        ("http://a:8000/v1/chat/completions/", "http://a:8000"),
        ("http://a:8000/chat/completions", "http://a:8000"),
        ("http://a:8000/v1/completions", "http://a:8000"),
        ("http://a:8000/v1/embeddings", "http://a:8000"),
        ("http://a:8000/v1/models", "http://a:8000"),
        ("http://a:8000/v1/models/org/name", "http://a:8000"),
        ("http://a:8000/v1/responses", "http://a:8000"),
        ("http://a:8000/v1/messages", "http://a:8000"),
        ("http://a:8000/health", "http://a:8000"),
        ("http://a:8000/metrics", "http://a:8000"),
        ("http://a:8000/docs", "http://a:8000"),
        ("https://a/vllm/v1/chat/completions", "https://a/vllm"),
    ],
)
def test_an_endpoints_path_is_refused_with_the_right_address(url, right):
    with pytest.raises(ValueError, match=r"ends in an endpoint's path; write ") as caught:
        check_server_url("url", url)
    assert str(caught.value) == f"url: {url!r} ends in an endpoint's path; write {right}"
    check_server_url("url", right)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:8000", "http://a:8000/", "http://a:8000/v1", "http://a/vllm/v1/",
        "http://a/embeddings", "http://a/models/llama/v1", "http://a/scores", "http://[::1]:8000",
        "http://completions:8000", "http://gpu-0:9464/large",
    ],
)  # fmt: skip
def test_a_servers_address_is_taken(url):
    check_server_url("url", url)


@pytest.mark.parametrize("path", sorted({path for _, path in VLLM_PATHS}))
def test_every_path_of_vllms_is_refused_as_a_servers_address(path):
    path = path.replace("{response_id}", "resp_1")
    for prefix in ("", "/proxied"):
        with pytest.raises(ValueError, match=rf"write http://a:8000{prefix}$"):
            check_server_url("url", f"http://a:8000{prefix}{path}")


def test_a_ledger_may_be_called_as_an_endpoint_is():
    check_meter_url("meter", "http://gpu-0:9464/rerank")
    with pytest.raises(ValueError, match=r"write http://gpu-0:9464$"):
        check_meter_url("meter", "http://gpu-0:9464/metrics")


def test_white_space_in_an_address_is_refused():
    for url in ("http://a:8000\n", " http://a:8000", "http://a :8000", "http://a:8000/\x7f"):
        with pytest.raises(ValueError, match="white space"):
            check_server_url("url", url)


def test_the_root_of_a_server():
    assert server_root("http://a/x/v1/") == "http://a/x"


@pytest.mark.parametrize("path", ["/api/v1/query", "/api/v1", "/graph", "/metrics", "/graph/"])
def test_a_page_of_prometheus_is_refused_with_the_right_address(path):
    with pytest.raises(ValueError, match=r"write http://p:9090/prom$"):
        check_prometheus_url("url", f"http://p:9090/prom{path}")
    check_prometheus_url("url", "http://p:9090/prom")
