"""What `joulegate recalibrate` does not adopt: poisoned, too few, too narrow, too far away."""

import msgspec
import numpy as np
import pytest

from calibration.recalibrate.prometheus import Series
from gateway import profile
from gateway.profile import CostRegression, OutputCoefficients, TokenRatio
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, ROW_TERMS, ROWS
from tests.unit.calibration.recalibrate import recalibrating
from tests.unit.calibration.recalibrate.recalibrating import (
    BASES,
    model,
    part,
    predicted,
    recalibrate,
    served,
    told,
)
from tests.unit.calibration.recalibrate.sums_of_rows import series, traffic

live, server = recalibrating.live, recalibrating.server

POISON = [
    ("y", lambda _, v: -v, "negative: term y is -"),
    ("wy2", lambda _, v: v / 50, "impossible: (wy)² is"),
    ("o", lambda _, __: 5.0, "stuck: term o stood still over 3000 requests"),
]


@pytest.mark.parametrize(("term", "change", "said"), POISON)
@pytest.mark.parametrize("quantity", ["seconds", "joules"])
def test_poisoned_sums_leave_the_live_profile_alone(server, live, quantity, term, change, said):
    poisoned = [
        Series(
            one.metric, [(at, repr(change(k, float(v)))) for k, (at, v) in enumerate(one.values)]
        )
        if (one.metric["basis"], one.metric["term"], one.metric["quantity"])
        == (COSTS, term, quantity)
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
    rows["p"] = predicted(rows, "seconds")
    server.add(series(rows, COSTS, quantity="seconds"))
    code, text, _ = recalibrate(live)
    assert code == 1
    assert "refused: lengths: prompts are all of about 64 tokens" in text


def mostly_winsorised(**how):
    """Series of a model nearly all of whose requests cost over five times the live prediction."""
    found, _ = served(factor=20.0, **how)
    high = ROW_TERMS.index("high")
    return [
        Series(one.metric, [(at, repr(0.9 * float(n))) for at, n in first.values])
        if (one.metric["basis"], one.metric["term"]) == (ROWS, ROW_TERMS[high])
        else one
        for one in found
        for first in [_count_of(found, one)]
    ]


def _count_of(found, one):
    """The rows' count that belongs to a series."""
    return next(
        other
        for other in found
        if (other.metric["basis"], other.metric["term"]) == (ROWS, "rows")
        and (
            other.metric["quantity"] == one.metric["quantity"] or one.metric["quantity"] == "tokens"
        )
    )


def test_too_large_a_change(server, live):
    server.add(mostly_winsorised())
    code, report = told(live)
    assert code == 1
    assert report["out"] is None
    refused = {one["gate"]: one for one in part(report, "seconds")["refused"]}
    assert refused["change"]["number"] == pytest.approx(0.9, rel=0.01)
    assert refused["change"]["bound"] == 0.5


def test_a_large_change_is_taken_in_steps(server, live):
    server.add(served(factor=4.0)[0])
    code, report = told(live)
    assert code == 0
    found = part(report, "seconds")
    assert found["change"] * found["step"] == pytest.approx(3.0)
    assert recalibrate(live, "--max-change", 20)[0] == 0


def test_a_refused_model_does_not_hold_up_another(server, live):
    server.add(served()[0])
    server.add(mostly_winsorised(name="mistral-7b"))
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


def test_answers_that_were_mostly_cut_still_tell_their_length(server, live):
    found, _ = served(bases=[basis for basis in BASES if basis != OUTPUT])
    server.add(found)
    rng = np.random.default_rng(5)
    o = np.maximum(1.0, np.rint(rng.lognormal(5.5, 0.8, 2000)))
    limit = rng.choice([64.0, 128.0, 256.0], 2000)
    rows = {**traffic(2000)[0], "o": np.minimum(o, limit), "cut": o >= limit}
    server.add(series(rows, OUTPUT, quantity="tokens"))
    code, report = told(live)
    assert code == 0
    found = part(report, "output")
    assert found["censored"] > 1400
    assert found["mu"] == pytest.approx(5.5, abs=0.1)
    assert found["sigma"] == pytest.approx(0.8, abs=0.1)


def test_answers_that_were_all_cut_tell_nothing(server, live):
    found, _ = served(bases=[basis for basis in BASES if basis != OUTPUT])
    server.add(found)
    rows = {**traffic(500)[0], "cut": np.ones(500, dtype=bool)}
    server.add(series(rows, OUTPUT, quantity="tokens"))
    before = profile.load_profile(live).get_model("phi-3-mini")
    code, text, _ = recalibrate(live)
    assert code == 0
    assert "output: left as it was: requests: 0 whole answers of 500" in text
    assert profile.load_profile(live).get_model("phi-3-mini").output == before.output


def test_lengths_that_were_log_normal_are_fitted_anew(server, live):
    learnt = OutputCoefficients(form="lognormal", mu=5.0, sigma=0.9, n=400, censored=30)
    profile.save_profile({"phi-3-mini": model(output=learnt)}, live)
    server.add(served()[0])
    code, report = told(live)
    assert code == 0
    found, output = (
        part(report, "output"),
        profile.load_profile(live).get_model("phi-3-mini").output,
    )
    assert found["adopted"]
    assert output == OutputCoefficients(
        form="lognormal", mu=found["mu"], sigma=found["sigma"], n=found["n"], censored=0
    )


def test_digits_and_marks_that_no_prompt_has_keep_what_the_profile_says_of_them(server, live):
    tokens = TokenRatio(1.1, per_dense_char=0.2)
    profile.save_profile({"phi-3-mini": model(tokens=tokens)}, live)
    server.add(served()[0])
    code, report = told(live)
    assert code == 0
    (refused,) = part(report, "tokens")["refused"]
    assert refused["gate"] == "gain"
    assert part(report, "tokens")["per_dense_char_kept"] is True
    assert part(report, "tokens")["per_dense_char"] == 0.2
    assert profile.load_profile(live).get_model("phi-3-mini").tokens == tokens


def test_a_live_profile_that_holds_is_left_as_it_was(server, live):
    rows = {quantity: traffic(3000, 1, quantity=quantity) for quantity in ("seconds", "joules")}
    costs = {
        quantity: CostRegression(form=RegressionForm.LOAD, coefficients=truth.tolist())
        for quantity, (_, truth) in rows.items()
    }
    profile.save_profile({"phi-3-mini": msgspec.structs.replace(model(), **costs)}, live)
    for quantity, (one, truth) in rows.items():
        one["p"] = one["x"] @ truth
        for basis in (COSTS, ROWS):
            server.add(series(one, basis, quantity=quantity))
    raw = live.read_bytes()
    code, text, _ = recalibrate(live)
    assert code == 0
    assert "! seconds: left as it was: gain: " in text
    assert "the live profile holds" in text
    assert live.read_bytes() == raw


def test_joules_missing_of_dear_requests(server, live):
    found, rows = served(bases=[basis for basis in BASES if basis != METERED])
    server.add(found)
    o = rows["joules"]["o"]
    dear = {**rows["joules"], "metered": (o < np.quantile(o, 0.8)).astype(float)}
    server.add(series(dear, METERED, quantity="joules"))
    code, text, _ = recalibrate(live)
    assert code == 0 or "joules: refused: missing" in text
    assert code == 1
