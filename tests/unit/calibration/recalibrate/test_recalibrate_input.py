"""What `joulegate recalibrate` is given: options, and a Prometheus that may not answer."""

import pytest
import respx

from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    QUERY,
    URL,
    call,
    recalibrate,
    served,
)

live, server = recalibrating.live, recalibrating.server


def test_no_such_series(server, live):
    code, _, said = recalibrate(live)
    assert code == 1
    assert "no series joulegate_ols_sum_total in the window" in said
    assert server.held == {}


@respx.mock
def test_prometheus_out_of_order(live):
    respx.post(QUERY).respond(503, text="not ready")
    raw = live.read_bytes()
    code, _, said = recalibrate(live)
    assert code == 1
    assert f"joulegate: {URL}: HTTP 503: not ready" in said
    assert live.read_bytes() == raw


@respx.mock
def test_headers_and_tokens(live, tmp_path):
    route = respx.post(QUERY).respond(401)
    token = tmp_path / "token"
    token.write_text("abc\n")
    recalibrate(live, "--header", "X-Scope-OrgID: me", "--bearer-token-file", token)
    sent = route.calls.last.request.headers
    assert sent["authorization"] == "Bearer abc"
    assert sent["x-scope-orgid"] == "me"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--prometheus URL is needed"),
        (("--prometheus", "prom:9090"), "want http://… or https://…"),
        (("--prometheus", URL, "--window", "6"), "--window '6' is no duration"),
        (("--prometheus", URL, "--watch", "often"), "--watch 'often' is no duration"),
        (("--prometheus", URL, "--form", "best?"), "--form best?: is none of additive,"),
        (("--prometheus", URL, "--header", "nothing"), "--header nothing: want 'Name: value'"),
        (("--prometheus", URL, "--out", "/nowhere/x.json"), "there is no directory /nowhere"),
        (("--prometheus", URL, "--profile", "/nowhere.json"), "No such file"),
        (("--prometheus", URL, "--learnt", "/nowhere.json"), "--learnt wants an --out"),
        (("--prometheus", URL, "--model", "=x"), "--model =x: want NAME, or NAME=KEY"),
    ],
)
def test_what_cannot_be_used(server, live, options, said):
    server.add(served(50)[0])
    raw = live.read_bytes()
    given = options if "--profile" in options else (*options, "--profile", live)
    code, _, text = call(*given)
    assert code == 2
    assert said in text
    assert live.read_bytes() == raw


def test_a_missing_token_file(live):
    code, _, said = recalibrate(live, "--bearer-token-file", "/nowhere/token")
    assert code == 1
    assert "/nowhere/token: No such file" in said
