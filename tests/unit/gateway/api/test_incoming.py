"""The head of a request: its id, its steering headers, and what is wrong with it."""

import re

import pytest

from gateway.api.incoming import read_head
from gateway.service.client.errors import MethodNotAllowed, UnsupportedEncoding


def head(*headers, method="POST"):
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return read_head({"type": "http", "method": method, "headers": raw})


@pytest.mark.parametrize("sane", ["abc", "A-1_b.c:d", "x" * 128, "0"])
def test_a_sane_id_is_taken_over(sane):
    assert head(("x-request-id", sane)).request_id == sane


@pytest.mark.parametrize("insane", ["", "x" * 129, "a b", "é", "a\r\nb", "a/b", '"a"', "a\n"])
def test_any_other_is_replaced(insane):
    made = head(("x-request-id", insane)).request_id
    assert re.fullmatch(r"req_[0-9a-f]{24}", made)
    assert made != head(("x-request-id", insane)).request_id


def test_only_the_gateways_own_headers_steer():
    found = head(
        ("authorization", "Bearer sk-1"),
        ("x-joulegate-weight-energy", " 1 "),
        ("x-joulegate-explain", "true"),
        ("x-joulegat", "no"),
    )
    assert found.steering == {b"x-joulegate-weight-energy": b"1", b"x-joulegate-explain": b"true"}
    assert found.error is None


@pytest.mark.parametrize("name", ["x-joulegate-weight-energy", "x-joulegate-max-latency-ms"])
def test_a_repeated_header_is_a_400_that_names_it(name):
    error = head((name, "1"), (name, "1")).error
    assert (error.status, error.param) == (400, name)
    assert error.message == f"{name}: is given more than once"


@pytest.mark.parametrize(
    ("value", "length"), [("0", 0), ("1234", 1234), ("-1", None), ("1.5", None), ("", None)]
)
def test_the_length(value, length):
    assert head(("content-length", value)).length == length
    assert head().length is None


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "ZSTD"])
def test_what_is_compressed_is_noted(encoding):
    got = head(("content-encoding", encoding))
    assert got.error is None
    assert got.coding in {"gzip", "deflate", "zstd"}


def test_a_body_that_is_compressed_twice_is_a_415():
    twice = head(("content-encoding", "gzip"), ("content-encoding", "zstd"))
    assert isinstance(twice.error, UnsupportedEncoding)


@pytest.mark.parametrize("encoding", ["br", "identity, gzip", "gzip, zstd"])
def test_a_coding_that_is_not_understood_is_a_415(encoding):
    error = head(("content-encoding", encoding)).error
    assert isinstance(error, UnsupportedEncoding)
    assert error.status == 415


def test_identity_is_no_compression():
    assert head(("content-encoding", "Identity")).error is None
    assert head(("content-encoding", "")).error is None


def test_another_method_is_a_405():
    error = head(method="GET").error
    assert isinstance(error, MethodNotAllowed)
    assert error.status == 405


def test_expect_is_noticed():
    assert head(("expect", "100-continue")).expects_continue
    assert not head().expects_continue
