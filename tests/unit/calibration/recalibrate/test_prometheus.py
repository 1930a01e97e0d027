"""Queries to Prometheus, and every way in which it can fail to answer."""

from urllib.parse import parse_qs

import httpx
import pytest
import respx

from calibration.recalibrate.prometheus import (
    PrometheusClient,
    PrometheusError,
    parse_duration_seconds,
    parse_matcher,
)

URL = "http://prom:9090"
QUERY = f"{URL}/api/v1/query"
MATRIX = {
    "status": "success",
    "data": {
        "resultType": "matrix",
        "result": [{"metric": {"term": "n"}, "values": [[1.5, "3"], [16.5, "4"]]}],
    },
}


def ask(url=URL, **more):
    return PrometheusClient(url, **more).query_samples("x", "6h", 1234.5, basis="load")


@respx.mock
def test_raw_samples_of_a_window():
    route = respx.post(QUERY).respond(json=MATRIX)
    found = ask(headers={"X-Scope-OrgID": "me"})
    assert found.series[0].metric == {"term": "n"}
    assert found.series[0].values == [(1.5, "3"), (16.5, "4")]
    assert found.warnings == []
    sent = route.calls.last.request
    assert parse_qs(sent.content.decode()) == {
        "query": ['x{basis="load"}[6h]'], "time": ["1234.500"],
    }  # fmt: skip
    assert sent.headers["x-scope-orgid"] == "me"


@respx.mock
def test_a_prefix_and_a_slash_at_the_end():
    respx.post("https://host/prom/api/v1/query").respond(json=MATRIX)
    assert ask("https://host/prom/").series


@respx.mock
def test_warnings_are_handed_on():
    respx.post(QUERY).respond(json={**MATRIX, "warnings": ["a store is down"], "infos": ["?"]})
    assert ask().warnings == ["a store is down"]


@respx.mock
def test_a_native_histogram_beside_is_no_series_of_numbers():
    data = {"resultType": "matrix", "result": [{"metric": {}, "histograms": []}]}
    respx.post(QUERY).respond(json={"status": "success", "data": data})
    assert ask().series[0].values == []


REFUSED = {"status": "error", "errorType": "execution", "error": "too many samples"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(400, json=REFUSED), "HTTP 400: too many samples"),
        (httpx.Response(422, json=REFUSED), "HTTP 422: too many samples; try a shorter --window"),
        (httpx.Response(200, json=REFUSED), "HTTP 200: too many samples"),
        (httpx.Response(401, text="no"), "HTTP 401: no; give credentials"),
        (httpx.Response(403), "HTTP 403: Forbidden; these credentials"),
        (httpx.Response(404, text="404 page not found"), "HTTP 404: 404 page not found; is this"),
        (httpx.Response(503, text="Service\nUnavailable"), "HTTP 503: Service Unavailable"),
        (httpx.Response(302, headers={"location": "/login"}), "HTTP 302: moved to /login"),
        (httpx.Response(200, text="<html>Grafana"), "not Prometheus: it answers '<html>Grafana'"),
        (httpx.Response(200, content=b"\xff\xfe"), "not Prometheus"),
        (httpx.Response(200, json={"ok": True}), "not Prometheus"),
        (httpx.Response(200, json={"status": "success"}), "not raw samples but nothing"),
        (
            httpx.Response(200, json={"status": "success", "data": {"resultType": "vector"}}),
            "not raw samples but vector",
        ),
        (httpx.Response(200, content=b"[" * 100_000), "not Prometheus"),
    ],
)
@respx.mock
def test_every_other_answer_is_said_plainly(answer, said):
    respx.post(QUERY).mock(return_value=answer)
    with pytest.raises(PrometheusError) as caught:
        ask()
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{URL}: ")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("refused"), "cannot be reached: refused"),
        (httpx.ReadTimeout("slow"), "no answer within 30 s (--timeout)"),
        (httpx.RemoteProtocolError("gone"), "cannot be reached: gone"),
    ],
)
@respx.mock
def test_no_answer_at_all(error, said):
    respx.post(QUERY).mock(side_effect=error)
    with pytest.raises(PrometheusError, match="prom:9090") as caught:
        ask()
    assert said in str(caught.value)


def test_nobody_there():
    with pytest.raises(PrometheusError, match="cannot be reached"):
        ask("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["http://host:port", "prom:9090", "ftp://prom", "http://", ""])
def test_what_is_no_address(url):
    with pytest.raises(PrometheusError, match=r"no address|want http"):
        PrometheusClient(url)


@pytest.mark.parametrize("url", ["http://u:pl4nted/x@h:1", "ftp://u:pl4nted@h", "u:pl4nted@h:1"])
def test_a_password_in_what_is_no_address_is_not_repeated(url):
    with pytest.raises(PrometheusError) as refused:
        PrometheusClient(url)
    assert "pl4nted" not in str(refused.value)


@respx.mock
def test_credentials_in_the_address_are_sent_and_not_shown():
    route = respx.post(QUERY).respond(500)
    with pytest.raises(PrometheusError) as caught:
        ask("http://me:secret@prom:9090")
    assert route.calls.last.request.headers["authorization"].startswith("Basic ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("6h", 21600), ("1h30m", 5400), ("7d", 604800), ("500ms", 0.5)],
)
def test_durations(text, seconds):
    assert parse_duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-6h", "0s", "6h]", "1.5h", "६h"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match="is no"):
        parse_duration_seconds(text)


@respx.mock
def test_matchers_narrow_every_query():
    route = respx.post(QUERY).respond(json=MATRIX)
    server = PrometheusClient(
        URL, matchers=(parse_matcher("namespace=llm"), parse_matcher('job!~"a|b"'))
    )
    server.query_samples("x", "6h", 1.0, basis="load")
    server.query_samples("y", "6h", 1.0)
    asked = [parse_qs(call.request.content.decode())["query"] for call in route.calls]
    assert asked == [
        ['x{basis="load",namespace="llm",job!~"a|b"}[6h]'],
        ['y{namespace="llm",job!~"a|b"}[6h]'],
    ]


@pytest.mark.parametrize(
    ("text", "promql"),
    [
        ("namespace=llm", 'namespace="llm"'),
        ('namespace="llm"', 'namespace="llm"'),
        (" pod =~ gw-.* ", 'pod=~"gw-.*"'),
        (r"pod=~gw\.a", r'pod=~"gw\\.a"'),
        ("empty=", 'empty=""'),
        ("a!=b=c", 'a!="b=c"'),
    ],
)
def test_a_matcher_as_promql(text, promql):
    assert parse_matcher(text) == promql


@pytest.mark.parametrize("text", ["", "llm", "=llm", "1a=b", 'a="b"} or up{"', 'a=b"', "a b=c"])
def test_what_is_no_matcher(text):
    with pytest.raises(ValueError, match="no label matcher"):
        parse_matcher(text)
