"""Numbers at the edge: whatever was served, a window is refitted or refused, never a crash."""

import io

import msgspec
import numpy as np
import pytest
import respx
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from calibration.recalibrate import command as recalibrate_command
from calibration.recalibrate import profile_keys as keys
from calibration.recalibrate import refit_models as recalibrate
from calibration.recalibrate import report as recalibrate_report
from calibration.recalibrate import sums
from calibration.recalibrate.limits import GateLimits, PriorSettings
from calibration.recalibrate.printed_report import print_report
from calibration.recalibrate.prometheus_options import PrometheusOptions
from calibration.recalibrate.refit_models import RefitSettings
from calibration.recalibrate.window_sums import WindowSums
from gateway import profile
from gateway.profile import CostProfile, CostRegression
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, PROMPT, ROWS
from tests.unit.calibration.recalibrate.recalibrating import QUERY, URL, Server, model, served
from tests.unit.calibration.recalibrate.sums_of_rows import ONE, series, traffic

OPEN = GateLimits(
    min_requests=10, min_blocks=4, min_spread=0.0, max_condition=1e300, max_interval=1e300,
    max_change=1e300,
)  # fmt: skip
"""As wide open as the command line lets them be."""
LIVES = {
    "additive": model(),
    "load": msgspec.structs.replace(
        model(),
        seconds=CostRegression(
            form=RegressionForm.LOAD, coefficients=[0.05, 0.0004, 0.02, 0.0, 0.0006]
        ),
        joules=CostRegression(
            form=RegressionForm.LOAD, coefficients=[20.0, 0.05, 0.8, 0.0002, 4.5]
        ),
    ),
}


def window(seconds, joules=None, prompts=None):
    """Return the sums of rows; `joules` and `prompts` may have other rows than `seconds`."""
    rows = {
        (COSTS, "seconds"): seconds,
        (COSTS, "joules"): seconds if joules is None else joules,
        (ROWS, "seconds"): seconds,
        (ROWS, "joules"): seconds if joules is None else joules,
        (METERED, "joules"): seconds,
        (OUTPUT, "tokens"): seconds,
        (PROMPT, "tokens"): seconds if prompts is None else prompts,
    }
    return WindowSums(
        {
            ONE: {
                (basis, quantity): sums.read_blocks(basis, series(one, basis, quantity=quantity))[
                    ONE
                ]
                for (basis, quantity), one in rows.items()
            }
        },
        (),
    )


def outcome(found, limits, live="additive", few=None, form=None):
    """Refit, and say it in both ways; returns the parts' refusals."""
    before = CostProfile({ONE[0]: LIVES[live]}, "x")
    how = RefitSettings(
        limits=limits, prior_settings=few or PriorSettings(), form=form, block_seconds=60.0
    )
    outcomes = recalibrate.recalibrate_models(found, before, {ONE[0]: [ONE]}, how)
    source = {"prometheus": URL, "window": "6h", "to": "now"}
    msgspec.json.encode(recalibrate_report.build_report(outcomes, (), before, source))
    print_report(Console(file=io.StringIO()), outcomes, (), before, source)
    return {part.name: [str(one) for one in part.refusals] for part in outcomes[0].parts}


def constant(rows, **columns):
    return {**rows, **{name: np.full(len(rows["i"]), value) for name, value in columns.items()}}


def test_joules_that_are_all_0():
    rows = traffic(500)[0]
    said = outcome(window(rows, joules=constant(rows, y=0.0)), GateLimits())
    assert said["joules"] == ["zero: costs are 0 in all 500 requests"]


def test_counted_tokens_that_are_all_0():
    rows = traffic(500)[0]
    said = outcome(window(rows, prompts=constant(rows, e=0.0)), GateLimits())
    assert said["tokens"] == [
        "zero: the gateway's own token counts of prompts are 0 in all 500 requests"
    ]


def test_prompts_that_are_all_0():
    rows = constant(traffic(500)[0], i=0.0)
    said = outcome(window(rows), OPEN)
    assert "condition" in said["seconds"][0]


def test_a_scrape_whose_answers_were_all_empty_tells_no_load():
    rows = traffic(500)[0]
    shares = rows["o"] / (1.0 + rows["r"])
    rows["o"][:7] = shares[:7] = 0.0
    rows["z"] = shares
    found = sums.read_blocks(COSTS, series(rows, COSTS, quantity="joules"))[ONE]
    assert found.faults == ()
    said = outcome(window(traffic(500)[0], joules=rows), OPEN)
    assert not any("zero" in one for one in said["joules"])


LENGTHS = st.sampled_from([0.0, 1.0, 2.0, 100.0, 1e6])
PRICES = st.sampled_from([0.0, 1e-6, 0.5, 3.0, 1e9])
ROW = st.tuples(LENGTHS, LENGTHS, PRICES, st.sampled_from([0.0, 1.0, 7.0, 1e4]), LENGTHS)


@pytest.mark.slow
@given(
    kinds=st.lists(ROW, min_size=1, max_size=6),
    picks=st.lists(st.integers(0, 5), min_size=12, max_size=60),
    load=st.sampled_from(["r", "share"]),
    live=st.sampled_from(sorted(LIVES)),
    few=st.sampled_from(
        [PriorSettings(), PriorSettings(prior_requests=0.0), PriorSettings(1e9, 10**9)]
    ),
    form=st.sampled_from([None, *RegressionForm]),
    limits=st.sampled_from([GateLimits(min_requests=10, min_blocks=4), OPEN]),
)
@settings(max_examples=150, deadline=None)
def test_no_rows_whatever_end_in_anything_but_a_refit_or_a_refusal(
    kinds, picks, load, live, few, form, limits
):
    i, o, y, r, e = np.array([kinds[pick % len(kinds)] for pick in picks]).T
    z = o * r if load == "r" else np.round(o / (1.0 + r), 9)
    rows = {"i": i, "o": o, "y": y, "z": z, "e": e}
    said = outcome(window(rows), limits, live, few, form)
    assert set(said) == {"seconds", "joules", "output", "tokens"}


@pytest.fixture
def live(tmp_path):
    path = tmp_path / "profile.json"
    profile.save_profile({"phi-3-mini": model(), "mistral-7b": model()}, path)
    return path


@pytest.fixture
def server():
    with respx.mock:
        held = Server()
        held.add(served(500)[0])
        respx.post(QUERY).mock(side_effect=held)
        yield held


def watched(live, between):
    """Watch three rounds; `between` is called after each with its number, from 1."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        between(len(slept))
        if len(slept) == 3:
            raise KeyboardInterrupt

    options = recalibrate_command.RecalibrateOptions(
        prometheus=URL, profile=live, out=live, watch="15m", as_json=True
    )
    assert recalibrate_command.run(options, clock=lambda: 2000.0, sleep=sleep) == 0
    assert len(slept) == 3


@pytest.mark.usefixtures("server")
def test_watching_outlives_what_nobody_thought_of(live, monkeypatch, capsys):
    def broken(*_):
        raise ZeroDivisionError("float division\nby zero")

    def between(number):
        if number == 1:
            monkeypatch.setattr(keys, "choose_keys", broken)
        else:
            monkeypatch.undo()

    watched(live, between)
    out, errors = capsys.readouterr()
    assert errors.splitlines() == [
        "joulegate: this round failed: ZeroDivisionError: float division by zero"
    ]
    assert len(out.splitlines()) == 2


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "bad", [b"\xff\xfe{", b'{"version": 1, "models": {"\xe9": 1}}', b"", b"{}"]
)
def test_watching_outlives_a_live_profile_that_is_bad_for_a_while(live, bad, capsys):
    good = live.read_bytes()

    def between(number):
        live.write_bytes(bad if number == 1 else good)

    watched(live, between)
    out, errors = capsys.readouterr()
    assert len(errors.splitlines()) == 1
    assert errors.startswith("joulegate: ")
    assert len(out.splitlines()) == 2


@pytest.mark.usefixtures("server")
def test_a_token_file_of_other_bytes(live, tmp_path):
    token = tmp_path / "token"
    token.write_bytes(b"\xff\xfe")
    options = recalibrate_command.RecalibrateOptions(
        prometheus=URL, profile=live, out=live, access=PrometheusOptions(bearer_token_file=token)
    )
    assert recalibrate_command.run(options) == 2
