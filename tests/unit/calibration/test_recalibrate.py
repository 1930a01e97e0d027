"""`joulegate recalibrate` as it is called: what it adopts, refuses, writes, and takes back."""

import json

import numpy as np
import pytest
import respx
from statsmodels.regression.linear_model import OLS

from calibration import recalibrate_command
from calibration.prometheus import Series
from calibration.sums import LOAD, OUTPUT, TOKENS
from gateway import profile
from gateway.profile import Output, Prefill
from gateway.scheduling.cost import Form
from tests.unit.calibration.recalibrating import (
    QUERY,
    URL,
    Server,
    call,
    model,
    part,
    recalibrate,
    served,
    told,
)
from tests.unit.calibration.sums_of_rows import clusters, series, traffic


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "profile.json"
    profile.save({"phi-3-mini": model(), "mistral-7b": model()}, path)
    return path


@pytest.fixture
def server():
    with respx.mock:
        held = Server()
        respx.post(QUERY).mock(side_effect=held)
        yield held


def test_a_model_is_refitted_from_its_traffic(server, live):
    found, rows = served(restarts=(700, 2000))
    server.add(found)
    before = profile.load(live)
    code, report = told(live)
    assert code == 0
    after = profile.load(live)
    assert report["profile_version"] == after.version != before.version
    assert report["parent_version"] == before.version
    new = after.model("phi-3-mini")
    for name, one in (("seconds", new.seconds), ("joules", new.joules)):
        known = OLS(rows[name]["y"], rows[name]["x"]).fit(
            cov_type="cluster", cov_kwds={"groups": clusters(3000, 7, (700, 2000))}
        )
        assert one.form is Form.LOAD
        assert one.coefficients == pytest.approx(known.params, rel=1e-9)
        assert np.array(one.covariance) == pytest.approx(known.cov_params(), rel=1e-9)
        assert (one.n, one.r2) == (3000, pytest.approx(known.rsquared))
        assert part(report, name)["resets"] == 2
        assert set(one.fitted_range) == {"tokens_in", "tokens_out", "running"}
    line = OLS(rows["seconds"]["o"], rows["seconds"]["x"][:, :2]).fit().params
    assert [new.output.intercept, new.output.slope] == pytest.approx(line, rel=1e-9)
    assert new.tokens.ratio == pytest.approx(
        rows["seconds"]["i"].sum() / rows["seconds"]["e"].sum()
    )
    assert new.accuracy == before.model("phi-3-mini").accuracy
    assert after.model("mistral-7b") == before.model("mistral-7b")


def test_a_prompts_own_joules_stay_those_of_profiling(server, live):
    server.add(served()[0])
    recalibrate(live)
    assert profile.load(live).model("phi-3-mini").prefill == Prefill(30.0, 0.06)
    recalibrate(live)
    assert profile.load(live).model("phi-3-mini").prefill == Prefill(30.0, 0.06)
    profile.save({"phi-3-mini": model(prefill=Prefill(7.0, 0.5))}, live)
    recalibrate(live)
    assert profile.load(live).model("phi-3-mini").prefill == Prefill(7.0, 0.5)


def test_provenance_says_where_the_numbers_come_from(server, live):
    server.add(served()[0])
    parent = profile.load(live).version
    recalibrate(live)
    said = profile.load(live).model("phi-3-mini").provenance
    assert said["method"] == "recalibrated"
    assert said["parent_version"] == parent
    assert (said["prometheus"], said["window"]) == (URL, "6h")
    assert said["dates"] == [said["from"], said["to"]]
    assert (said["hardware"], said["accuracy"]) == ("H200", "given with --accuracy")
    assert "rows" not in said
    assert (said["seconds"]["requests"], said["seconds"]["instances"]) == (3000, 1)


def test_the_report_on_a_terminal(server, live):
    server.add(served()[0])
    server.warnings = ["a store is down"]
    code, text, errors = recalibrate(live)
    assert code == 0
    assert errors == ""
    for said in (
        "! Prometheus warns: a store is down",
        "95% interval",
        "b4 load",
        "Chow test",
        "live is off by",
        "tokens out: ",
        "token ratio: 1.1",
        "phi-3-mini: passed",
        f"wrote {live} (version {profile.load(live).version}): phi-3-mini",
    ):
        assert said in text


def test_a_dry_run_writes_nothing(server, live):
    server.add(served()[0])
    raw = live.read_bytes()
    code, text, _ = recalibrate(live, "--dry-run")
    assert code == 0
    assert "would adopt: phi-3-mini (--dry-run: nothing was written)" in text
    assert live.read_bytes() == raw
    assert list(live.parent.iterdir()) == [live]


def test_the_shipped_profile_and_another_place_to_write(server, tmp_path):
    server.add(served()[0])
    out = tmp_path / "new.json"
    assert call("--prometheus", URL, "--out", out)[0] in {0, 1}
    assert call("--prometheus", URL, "--out", out, "--max-change", "100")[0] == 0
    assert profile.load(out).models.keys() == profile.load(None).models.keys()
    code, _, said = call("--prometheus", URL)
    assert code == 2
    assert "where to write?" in said


def test_a_rollback_and_back_again(server, live):
    server.add(served()[0])
    first = live.read_bytes()
    recalibrate(live)
    second = live.read_bytes()
    assert live.with_name("profile.json.previous").read_bytes() == first
    code, text, _ = call("--rollback", "--profile", live)
    assert code == 0
    assert f"is version {profile.load(live).version} again" in text
    assert live.read_bytes() == first
    code, text, _ = call("--rollback", "--profile", live, "--json")
    assert live.read_bytes() == second
    assert json.loads(text)["profile_version"] == profile.load(live).version
    assert sorted(path.name for path in live.parent.iterdir()) == [
        "profile.json", "profile.json.previous",
    ]  # fmt: skip


def test_a_rollback_to_nothing(live):
    raw = live.read_bytes()
    assert call("--rollback", "--profile", live)[0] == 2
    live.with_name("profile.json.previous").write_text("{}")
    code, _, said = call("--rollback", "--profile", live)
    assert code == 2
    assert "no version" in said
    assert live.read_bytes() == raw
    assert call("--rollback")[0] == 2


POISON = [
    ("y", lambda _, v: -v, "negative: term y is -"),
    ("y2", lambda _, v: v / 50, "impossible: (y)² is"),
    ("o", lambda _, __: 5.0, "stuck: term o stood still over 3000 requests"),
]


@pytest.mark.parametrize(("term", "change", "said"), POISON)
@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_poisoned_sums_leave_the_live_profile_alone(server, live, quantity, term, change, said):
    poisoned = [
        Series(
            one.metric, [(at, repr(change(k, float(v)))) for k, (at, v) in enumerate(one.values)]
        )
        if (one.metric["term"], one.metric["quantity"]) == (term, quantity)
        else one
        for one in served()[0]
    ]
    server.add(poisoned)
    raw = live.read_bytes()
    code, text, _ = recalibrate(live)
    assert code == 1
    assert f"! {quantity}: refused: {said}" in text
    assert "phi-3-mini: not adopted: the live entry stays" in text
    assert "nothing was adopted; the live profile stays as it is" in text
    assert live.read_bytes() == raw


def test_fifty_requests_are_too_few(server, live):
    server.add(served(50)[0])
    raw = live.read_bytes()
    code, text, _ = recalibrate(live)
    assert code == 1
    assert "! seconds: left as it was: requests: 50, at least 100 needed" in text
    assert live.read_bytes() == raw


def test_one_constant_prompt_length(server, live):
    rows = traffic(2000)[0]
    rows["i"] = np.full(2000, 64.0)
    server.add(series(rows, LOAD, quantity="seconds"))
    code, text, _ = recalibrate(live)
    assert code == 1
    assert "refused: lengths: prompts are all of about 64 tokens" in text


def test_too_large_a_change(server, live):
    server.add(served(factor=8.0)[0])
    code, report = told(live)
    assert code == 1
    assert report["out"] is None
    (refused,) = part(report, "seconds")["refused"]
    assert (refused["gate"], refused["bound"]) == ("change", 3.0)
    assert refused["number"] > 3.0
    assert recalibrate(live, "--max-change", 20)[0] == 0


def test_without_a_meter_seconds_are_refitted_alone(server, live):
    server.add(served(joules=False)[0])
    before = profile.load(live).model("phi-3-mini")
    assert recalibrate(live)[0] == 0
    after = profile.load(live).model("phi-3-mini")
    assert after.seconds.form is Form.LOAD
    assert after.joules == before.joules
    assert after.prefill is None


def test_a_refused_model_does_not_hold_up_another(server, live):
    server.add(served()[0])
    server.add(served(name="mistral-7b", factor=8.0)[0])
    before = profile.load(live)
    code, report = told(live)
    assert code == 1
    assert [one["adopted"] for one in report["models"]] == [False, True]
    after = profile.load(live)
    assert after.model("mistral-7b") == before.model("mistral-7b")
    assert after.model("phi-3-mini") != before.model("phi-3-mini")
    assert told(live, "--model", "phi-3-mini")[0] == 0


def test_a_quiet_model_is_no_refusal(server, live):
    server.add(served()[0])
    server.add(served(20, name="mistral-7b")[0])
    assert recalibrate(live)[0] == 0


def test_answers_that_were_mostly_cut_tell_no_length(server, live):
    found, _ = served(bases=(LOAD,))
    server.add(found)
    server.add(series(traffic(400)[0], OUTPUT, quantity="tokens"))
    before = profile.load(live).model("phi-3-mini")
    code, text, _ = recalibrate(live)
    assert code == 0
    assert "output: refused: cut: only 13% of the answers" in text
    assert profile.load(live).model("phi-3-mini").output == before.output


def test_lengths_that_changed_too_much(server, live):
    profile.save({"phi-3-mini": model(output=Output(0.0, 4000.0))}, live)
    server.add(served()[0])
    _, report = told(live)
    assert part(report, "output")["refused"][0]["gate"] == "change"
    assert profile.load(live).model("phi-3-mini").output == Output(0.0, 4000.0)


def test_a_live_profile_that_holds_is_left_as_it_was(server, live):
    server.add(served()[0])
    recalibrate(live)
    raw = live.read_bytes()
    code, text, _ = recalibrate(live, "--min-gain", "0.1")
    assert code == 0
    assert "! seconds: left as it was: gain: the RMSE falls by " in text
    assert live.read_bytes() == raw
    assert recalibrate(live)[0] == 0
    assert live.read_bytes() != raw


def test_sums_without_load_still_serve(server, live):
    server.add(served(bases=(TOKENS,))[0])
    assert recalibrate(live)[0] == 0
    assert profile.load(live).model("phi-3-mini").seconds.form is Form.INTERACTION


def test_deployments_and_profile_keys(server, live):
    server.add(served(deployment="phi-on-l4")[0])
    code, report = told(live)  # by its model's name
    assert (code, report["models"][0]["deployments"]) == (0, ["phi-on-l4"])
    code, report = told(live, "--model", "phi-on-l4=mistral-7b", "--max-change", 50)
    assert (code, report["models"][0]["model"]) == (0, "mistral-7b")
    code, _, said = recalibrate(live, "--model", "other")
    assert code == 2
    assert "--model other: the sums have only phi-on-l4" in said
    code, _, said = recalibrate(live, "--model", "phi-on-l4=other")
    assert code == 2
    assert "is in the sums, but not in the profile (it has: mistral-7b, phi-3-mini)" in said


def test_two_deployments_of_one_profile_are_added(server, live):
    server.add(served(1000, deployment="a")[0])
    server.add(served(1000, deployment="b")[0])
    _, report = told(live)
    assert report["models"][0]["deployments"] == ["a", "b"]
    assert part(report, "seconds")["requests"] == 2000
    assert part(report, "seconds")["instances"] == 2


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


def test_what_is_no_profile_is_not_overwritten(server, live, tmp_path):
    server.add(served()[0])
    other = tmp_path / "other.json"
    other.write_text('{"version": 2}')
    code, _, said = recalibrate(live, "--out", other)
    assert code == 2
    assert "version 2 is not known here" in said
    assert other.read_text() == '{"version": 2}'


def options(live, **more):
    return recalibrate_command.Options(prometheus=URL, profile=live, out=live, watch="15m", **more)


def test_a_profile_that_was_replaced_meanwhile_is_left_alone(server, live):
    server.add(served()[0])

    def replaced(request):
        profile.save({"phi-3-mini": model(output=Output(1.0, 2.0))}, live)
        return server(request)

    respx.post(QUERY).mock(side_effect=replaced)
    code, _, said = recalibrate(live)
    assert code == 1
    assert "was replaced meanwhile, so nothing was written" in said
    assert profile.load(live).model("phi-3-mini").output == Output(1.0, 2.0)
    assert list(live.parent.iterdir()) == [live]


def test_watching_goes_on_after_a_bad_round_until_it_is_interrupted(server, live, capsys):
    now, slept = [1000.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds
        if len(slept) == 1:
            server.add(served()[0])
        if len(slept) == 3:
            raise KeyboardInterrupt

    def clock():
        now[0] += 2.0
        return now[0]

    assert recalibrate_command.run(options(live, as_json=True), clock=clock, sleep=sleep) == 0
    assert slept == [898.0] * 3
    out, errors = capsys.readouterr()
    rounds = [json.loads(line) for line in out.splitlines()]
    assert "no series" in errors
    assert [one["models"][0]["adopted"] for one in rounds] == [True, True]
    assert rounds[1]["parent_version"] == rounds[0]["profile_version"]
    assert rounds[1]["profile_version"] == profile.load(live).version
