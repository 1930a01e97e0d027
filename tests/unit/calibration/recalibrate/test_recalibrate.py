"""`joulegate recalibrate` as it is called: what it adopts of whose sums, and what it says of it."""

import math

import numpy as np
import pytest
from statsmodels.regression.linear_model import WLS

from calibration.recalibrate.prometheus import Series
from gateway import profile
from gateway.profile import PrefillEnergy
from gateway.scheduling.cost import RegressionForm
from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    URL,
    model,
    part,
    recalibrate,
    served,
    told,
)
from tests.unit.calibration.recalibrate.sums_of_rows import clusters

live, server = recalibrating.live, recalibrating.server


def smooth_errors(known, groups):
    """Return the covariance by the equal-weighted cosine estimator, from statsmodels' residuals."""
    x, left = known.model.wexog, known.wresid
    scores = np.array([x[groups == one].T @ left[groups == one] for one in np.unique(groups)])
    count, (n, k) = len(scores), x.shape
    total = np.zeros((k, k))
    for j in range(1, count // 2 + 1):
        wave = sum(
            math.cos(math.pi * j * (at + 0.5) / count) * score for at, score in enumerate(scores)
        )
        total += 2.0 * np.outer(wave, wave) / (count // 2)
    bread = known.normalized_cov_params
    return count / (count - 1) * (n - 1) / (n - k) * bread @ total @ bread


def test_a_model_is_refitted_from_its_traffic(server, live):
    found, rows = served(restarts=(700, 2000))
    server.add(found)
    before = profile.load_profile(live)
    code, report = told(live)
    assert code == 0
    after = profile.load_profile(live)
    assert report["profile_version"] == after.version != before.version
    assert report["parent_version"] == before.version
    new = after.get_model("phi-3-mini")
    for name, one in (("seconds", new.seconds), ("joules", new.joules)):
        p, x = rows[name]["p"], rows[name]["x"]
        y = np.clip(rows[name]["y"], p / 5, 5 * p)
        groups = np.floor(
            (1060.0 + 60.0 * clusters(3000, 7, (700, 2000))) / part(report, name)["block_seconds"]
        )
        known = WLS(y, x, weights=p**-2.0).fit()
        step = part(report, name)["step"]
        assert one.form is RegressionForm.LOAD
        assert one.coefficients == pytest.approx(step * known.params, rel=1e-7)
        errors = step**2 * smooth_errors(known, groups)
        assert np.array(one.covariance) == pytest.approx(errors, rel=1e-6)
        assert one.n == 3000
        assert part(report, name)["resets"] == 2
        assert set(one.fitted_range) == {"tokens_in", "tokens_out", "running"}
    logs = np.log(rows["seconds"]["o"])
    lengths = part(report, "output")
    assert lengths["mu"] == pytest.approx(logs.mean())
    assert lengths["sigma"] == pytest.approx(logs.std())
    output = new.output
    assert (output.form, output.n, output.censored) == ("lognormal", 3000, 0)
    assert (output.mu, output.sigma) == pytest.approx((logs.mean(), logs.std()))
    assert new.tokens.ratio == pytest.approx(
        rows["seconds"]["i"].sum() / rows["seconds"]["e"].sum()
    )
    assert new.accuracy == before.get_model("phi-3-mini").accuracy
    assert after.get_model("mistral-7b") == before.get_model("mistral-7b")


def test_a_prompts_own_joules_stay_those_of_profiling(server, live):
    server.add(served()[0])
    recalibrate(live)
    assert profile.load_profile(live).get_model("phi-3-mini").prefill == PrefillEnergy(30.0, 0.06)
    recalibrate(live)
    assert profile.load_profile(live).get_model("phi-3-mini").prefill == PrefillEnergy(30.0, 0.06)
    profile.save_profile({"phi-3-mini": model(prefill=PrefillEnergy(7.0, 0.5))}, live)
    recalibrate(live)
    assert profile.load_profile(live).get_model("phi-3-mini").prefill == PrefillEnergy(7.0, 0.5)


def test_provenance_says_where_the_numbers_come_from(server, live):
    server.add(served()[0])
    parent = profile.load_profile(live).version
    recalibrate(live)
    said = profile.load_profile(live).get_model("phi-3-mini").provenance
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
        "held out",
        "live is off by",
        "tokens out: ",
        "token ratio: 1.1",
        "phi-3-mini: passed",
        f"wrote {live} (version {profile.load_profile(live).version}): phi-3-mini",
    ):
        assert said in text


def test_without_a_meter_seconds_are_refitted_alone(server, live):
    server.add(served(joules=False)[0])
    before = profile.load_profile(live).get_model("phi-3-mini")
    assert recalibrate(live)[0] == 0
    after = profile.load_profile(live).get_model("phi-3-mini")
    assert after.seconds.form is RegressionForm.LOAD
    assert after.joules == before.joules
    assert after.prefill is None


def test_what_was_summed_under_an_earlier_profile_does_not_count(server, live):
    server.add(served()[0])
    where = {"model": "phi-3-mini", "version": "x", "instance": "a", "job": "gw"}
    begin = 1000.0 + 60.0 * 200
    server.versions = [Series(where, [(begin + 60.0 * k, "1") for k in range(200)])]
    _, report = told(live)
    version = profile.load_profile(live).version
    assert part(report, "seconds")["requests"] == 3000 - 200 * 7
    asked = [one for one in server.asked if one.startswith("joulegate_profile_info")]
    assert asked == [f'joulegate_profile_info{{version="{report["parent_version"]}"}}[6h]']
    assert version != report["parent_version"]


def test_a_second_server_that_scrapes_the_same_gateway_is_told_and_left_out(server, live):
    server.add(served(instance="a")[0])
    server.add(
        Series(
            {**one.metric, "prometheus_replica": "b"},
            [(at + 11.0, value) for at, value in one.values],
        )
        for one in served(instance="a")[0]
    )
    code, report = told(live)
    assert code == 0
    assert part(report, "seconds")["requests"] == 3000
    assert any("two Prometheus servers?" in one for one in report["warnings"])


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
