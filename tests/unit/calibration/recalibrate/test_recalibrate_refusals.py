"""What `joulegate recalibrate` does not adopt: poisoned, too few, too narrow, too far away."""

import numpy as np
import pytest

from calibration.recalibrate.prometheus import SampleSeries
from calibration.recalibrate.sums import LOAD, OUTPUT
from gateway import profile
from gateway.profile import OutputCoefficients
from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    model,
    part,
    recalibrate,
    served,
    told,
)
from tests.unit.calibration.recalibrate.sums_of_rows import series, traffic

live, server = recalibrating.live, recalibrating.server

POISON = [
    ("y", lambda _, v: -v, "negative: term y is -"),
    ("y2", lambda _, v: v / 50, "impossible: (y)² is"),
    ("o", lambda _, __: 5.0, "stuck: term o stood still over 3000 requests"),
]


@pytest.mark.parametrize(("term", "change", "said"), POISON)
@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_poisoned_sums_leave_the_live_profile_alone(server, live, quantity, term, change, said):
    poisoned = [
        SampleSeries(
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


def test_a_refused_model_does_not_hold_up_another(server, live):
    server.add(served()[0])
    server.add(served(name="mistral-7b", factor=8.0)[0])
    before = profile.load_profile(live)
    code, report = told(live)
    assert code == 1
    assert [one["adopted"] for one in report["models"]] == [False, True]
    after = profile.load_profile(live)
    assert after.get_model("mistral-7b") == before.get_model("mistral-7b")
    assert after.get_model("phi-3-mini") != before.get_model("phi-3-mini")
    assert told(live, "--model", "phi-3-mini")[0] == 0


def test_a_quiet_model_is_no_refusal(server, live):
    server.add(served()[0])
    server.add(served(20, name="mistral-7b")[0])
    assert recalibrate(live)[0] == 0


def test_answers_that_were_mostly_cut_tell_no_length(server, live):
    found, _ = served(bases=(LOAD,))
    server.add(found)
    server.add(series(traffic(400)[0], OUTPUT, quantity="tokens"))
    before = profile.load_profile(live).get_model("phi-3-mini")
    code, text, _ = recalibrate(live)
    assert code == 0
    assert "output: refused: cut: only 13% of the answers" in text
    assert profile.load_profile(live).get_model("phi-3-mini").output == before.output


def test_lengths_that_changed_too_much(server, live):
    profile.save_profile({"phi-3-mini": model(output=OutputCoefficients(0.0, 4000.0))}, live)
    server.add(served()[0])
    _, report = told(live)
    assert part(report, "output")["refused"][0]["gate"] == "change"
    assert profile.load_profile(live).get_model("phi-3-mini").output == OutputCoefficients(
        0.0, 4000.0
    )


def test_lengths_that_are_log_normal_are_not_replaced_by_a_line(server, live):
    learnt = OutputCoefficients(form="lognormal", mu=5.0, sigma=0.9, n=400, censored=30)
    profile.save_profile({"phi-3-mini": model(output=learnt)}, live)
    before = profile.load_profile(live).get_model("phi-3-mini")
    server.add(served()[0])
    code, report = told(live)
    assert code == 0
    assert not part(report, "output")["adopted"]
    (refused,) = part(report, "output")["refused"]
    assert (refused["gate"], refused["number"]) == ("form", None)
    after = profile.load_profile(live).get_model("phi-3-mini")
    assert after.output == learnt
    assert after.seconds != before.seconds


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
