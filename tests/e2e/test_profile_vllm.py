"""From a bare vLLM server to a profile that the gateway routes by: measure, fit, check, serve."""

import collections
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from backends.vllm.recipes import RECIPES
from calibration.profile.rows_file import read_measurements
from gateway import profile
from gateway.scheduling.cost import CostQuantity
from tests.e2e.fleet import gateway_server, running

JOULEGATE = Path(sys.executable).with_name("joulegate")
HARDWARE = "CPU of the end-to-end tests"


def joulegate(*arguments, may_fail=False):
    done = subprocess.run(
        [JOULEGATE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert may_fail or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(backends, tmp_path_factory):
    """A folder with rows.csv of the three models and profile.json fitted to it."""
    folder = tmp_path_factory.mktemp("profile")
    targets = [part for n in RECIPES for part in ("--backend", f"{n}={backends[n].url}")]
    rows, size = folder / "rows.csv", ("--grid", "small", "--blocks", "1", "--concurrency", "4")
    # By absolute loss, whose sums over its own rows are exact.
    fit = (
        "fit",
        rows,
        "--out",
        folder / "profile.json",
        "--merge",
        "shipped",
        "--loss",
        "absolute",
    )
    # Where other work disturbs so few requests, the fit refuses costs below zero and says to
    # measure more: the same plan goes on with more repeats.
    for repeats in (2, 6, 14):
        more = ("--min-cell-seconds", "0", "--max-repeats", repeats, "--hardware", HARDWARE)
        done = joulegate("profile", *targets, "--out", rows, *size, *more, "--json")
        summary = json.loads(done.stdout)
        assert summary["complete"]
        assert all(not model["failed_tries"] for model in summary["models"].values())
        if not joulegate(*fit, may_fail=True).returncode:
            return folder
    raise AssertionError(joulegate(*fit, may_fail=True).stderr)


def test_every_request_of_the_grid_is_a_row(folder):
    rows = list(read_measurements(folder / "rows.csv"))
    cells = collections.Counter((row.model, row.cell) for row in rows)
    assert {model for model, _ in cells} == set(RECIPES)
    assert len(cells) == 3 * (9 + 2)
    for row in rows:
        if row.concurrency == 1:
            wanted_in, wanted_out = map(int, row.cell.partition("@")[0].split("x"))
            assert row.tokens_out == wanted_out
            assert wanted_in - 8 <= row.tokens_in <= wanted_in
        assert 0 < row.ttft_seconds <= row.seconds
        assert row.running == row.concurrency - 1 or row.concurrency > 1
        assert row.engine.startswith("vllm 0.")
        assert row.hardware == HARDWARE
    # On a busy machine many an answer arrives in one piece.
    assert min(row.ttft_seconds / row.seconds for row in rows) < 1
    # No GPU and no simulator: what energy a request took is not known.
    assert {(row.joules, row.method) for row in rows} == {(None, "")}
    assert all(row.waiting is not None for row in rows)


def test_the_profile_predicts_what_was_measured(folder):
    joulegate("check", "--profile", folder / "profile.json")
    fitted, shipped = profile.load_profile(folder / "profile.json"), profile.load_profile(None)
    rows = list(read_measurements(folder / "rows.csv"))
    for name in RECIPES:
        model = fitted.get_model(name)
        assert model.seconds.n >= 9
        assert HARDWARE in json.dumps(model.provenance)
        # Joules were not measured, so those there were are kept.
        assert model.joules == shipped.get_model(name).joules
        # However noisy the machine: a least-squares fit is right on average over its own rows.
        own = [row for row in rows if row.model == name]
        cost = model.seconds.to_cost_function(CostQuantity.SECONDS)
        predicted = sum(
            cost.evaluate_form(row.tokens_in, row.tokens_out, row.running) for row in own
        )
        assert predicted == pytest.approx(sum(row.seconds for row in own), rel=1e-6)


def test_the_gateway_routes_by_it(backends, folder, tmp_path):
    server = gateway_server({name: backends[name] for name in RECIPES}, tmp_path)
    (tmp_path / "profile.json").write_bytes((folder / "profile.json").read_bytes())
    with contextlib.ExitStack() as stack:
        stack.enter_context(running([server]))
        server.wait_until_up("/ready", 30)
        body = {"model": "auto:time", "messages": [{"role": "user", "content": "Hello " * 50}]}
        body["max_tokens"] = body["min_tokens"] = 16  # one length, not a distribution
        decision = httpx.post(f"{server.url}/v1/route", json=body, timeout=30).json()
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    fitted = profile.load_profile(folder / "profile.json")
    assert decision["profile_version"] == fitted.version
    best, *others = decision["candidates"]
    tokens = decision["tokens"]
    cost = fitted.get_model(best["model"]).seconds.to_cost_function(CostQuantity.SECONDS)
    predicted = cost.predict_cost(tokens["input"], tokens["output"], best["running"])
    assert best["predicted_seconds"] == pytest.approx(
        predicted, rel=2e-2
    )  # tokens are shown rounded
    assert {best["model"], *(other["model"] for other in others)} == set(RECIPES)
    assert answer.status_code == 200
    assert answer.headers["x-joulegate-model"] == decision["model"]
