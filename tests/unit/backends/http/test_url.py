"""Addresses taken apart."""

import pytest

from backends.http.url import TlsFiles, parse_request_url


@pytest.mark.parametrize(
    ("text", "authority", "target", "host"),
    [
        ("http://a:8000/v1", "a:8000", "/v1", "a:8000"),
        ("http://a", "a:80", "/", "a"),
        ("https://a/x?y=1&z=%20", "a:443", "/x?y=1&z=%20", "a"),
        ("http://[::1]:9/x", "[::1]:9", "/x", "[::1]:9"),
        ("http://a/with space\r\n", "a:80", "/with%20space", "a"),
        ("http://bücher.example/", "xn--bcher-kva.example:80", "/", "xn--bcher-kva.example:80"),
    ],
)
def test_an_address(text, authority, target, host):
    url = parse_request_url(text)
    assert url.origin.authority == authority
    assert url.head.startswith(f" {target} HTTP/1.1\r\nHost: {host}\r\n")
    assert str(url) == text


@pytest.mark.parametrize(
    "text", ["ftp://a", "a:8000", "http://", "http://u:p@a/", "http://a/#x", "http://a:99999/"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"."):
        parse_request_url(text)


def test_the_same_server_is_the_same_origin():
    one = parse_request_url("http://a:8000/x").origin
    assert parse_request_url("http://a:8000/y", TlsFiles(ca_file="ca")).origin is one
    assert parse_request_url("http://a:8001/x").origin is not one
    secure = parse_request_url("https://a:8000/x").origin
    assert secure is not one
    assert parse_request_url("https://a:8000/x", TlsFiles()).origin is secure
    assert parse_request_url("https://a:8000/x", TlsFiles(ca_file="ca")).origin is not secure


@pytest.mark.parametrize(
    "url",
    [
        "http://u:pl4nted@h:1",
        "http://pl4nted@h:1",
        "http://u:pl4nted/x@h:1",
        "http://u:pl4nted#x@h:1",
        "ftp://u:pl4nted@h",
        "u:pl4nted@h:1",
    ],
)
def test_credentials_are_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="h") as refused:
        parse_request_url(url)
    assert "pl4nted" not in str(refused.value)
