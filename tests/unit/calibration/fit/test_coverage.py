"""Fits of rows straight from the simulator's engine, whose truth is known; no sockets."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.engine import BatchingEngine
from calibration.fit import model as fit
from calibration.stats import design, ols
from calibration.tables.rows import MeasuredRows, SourceFile
from gateway.scheduling.cost import CostQuantity, RegressionForm

SEEDS = 100
REPEATS = 2  # more only makes it slower: small samples are the harder test of an interval
TOKENS_IN = (32, 128, 512, 1024, 2048, 4096)
TOKENS_OUT = (16, 64, 128, 256, 512, 1024)
CONTEXTS = {"phi-3-mini": 4096, "mistral-7b": 4096, "falcon-7b": 2048}
# Joules and seconds that each pair of tokens adds: a cache that has to be read once per token.
_SECONDS_B3 = {"phi-3-mini": 5e-6, "mistral-7b": 6e-6, "falcon-7b": 3e-5}
_JOULES_B3 = {"phi-3-mini": 6e-4, "mistral-7b": 6e-4, "falcon-7b": 3e-3}


def truth_of(name, shipped, noise=0.02):
    """The published additive costs of a model, with an interaction term."""
    model = shipped.models[name]
    return CostModel(
        seconds=SimulatedCost("interaction", (*model.seconds.coefficients, _SECONDS_B3[name])),
        joules=SimulatedCost("interaction", (*model.joules.coefficients, _JOULES_B3[name])),
        noise=noise,
        context=CONTEXTS[name],
    )


def grid(truth: CostModel, seed: int, repeats: int) -> pd.DataFrame:
    """The full grid at concurrency 1, capped by the context."""
    cells = [(i, o) for i, o in product(TOKENS_IN, TOKENS_OUT) if i + o <= truth.context]
    engine = BatchingEngine(truth, seed)
    return pd.concat(
        [batch(engine, [cell]) for _ in range(repeats) for cell in cells], ignore_index=True
    )


def batch(engine: BatchingEngine, requests: list[tuple[int, int]]) -> pd.DataFrame:
    """Serve requests at once; one row each, `running` being the others."""
    for number, (tokens_in, tokens_out) in enumerate(requests):
        engine.submit_request(str(number), tokens_in, tokens_out)
    ended = []
    while (step := engine.run_step()) is not None:
        ended += step.finished
    return pd.DataFrame(
        {
            "tokens_in": [one.tokens_in for one in ended],
            "tokens_out": [one.tokens_out for one in ended],
            "seconds": [one.seconds for one in ended],
            "joules": [one.joules for one in ended],
            "running": len(requests) - 1,
        }
    )


def as_rows(frame, model="m"):
    full = {
        "model": model, "method": "", "hardware": "", "engine": "", "at": "", "reason": "",
        "file": 0, "row": np.arange(len(frame)), "tiktoken_in": np.nan, "cached_tokens": np.nan,
        "running": np.nan,
    }  # fmt: skip
    return MeasuredRows(
        pd.DataFrame({**full, **frame.to_dict("series")}), [SourceFile("x", "0", len(frame))]
    )


@pytest.mark.parametrize("name", list(CONTEXTS))
def test_alone_the_engine_follows_its_form_exactly(name, shipped):
    truth = truth_of(name, shipped, noise=0.0)
    fitted = fit.fit_model(as_rows(grid(truth, 0, 1)), "m")
    for cost, known in ((fitted.seconds, truth.seconds), (fitted.joules, truth.joules)):
        assert cost.form is RegressionForm.INTERACTION
        assert cost.fitted.coefficients == pytest.approx(known.coefficients, rel=1e-6)
        assert cost.fitted.r2 == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONTEXTS))
def test_the_intervals_cover_the_truth_honestly(name, shipped):
    truth = truth_of(name, shipped)
    hits = {quantity: np.zeros(4) for quantity in CostQuantity}
    for seed in range(SEEDS):
        frame = grid(truth, seed, REPEATS)
        for quantity, known in (
            (CostQuantity.SECONDS, truth.seconds),
            (CostQuantity.JOULES, truth.joules),
        ):
            x = design.build_design_matrix(RegressionForm.INTERACTION, quantity, frame)
            fitted = ols.fit_least_squares(x, frame[quantity.value].to_numpy(dtype=float))
            b = np.array(known.coefficients)
            hits[quantity] += (fitted.low <= b) & (b <= fitted.high)
            assert fitted.r2 > 0.96
    for counted in hits.values():
        assert counted.min() >= 88, hits


@pytest.mark.parametrize("name", list(CONTEXTS))
def test_the_true_form_is_picked_with_noise(name, shipped):
    fitted = fit.fit_model(as_rows(grid(truth_of(name, shipped), 7, REPEATS)), "m")
    assert [cost.form for cost in fitted.cost_fits] == [RegressionForm.INTERACTION] * 2
    assert all(cost.errors.median_ape < 0.03 for cost in fitted.cost_fits)


def test_load_is_picked_and_recovered_where_running_varies():
    truth = CostModel(
        seconds=SimulatedCost("load", (0.02, 0.0002, 0.03, 1e-6, 0.0004)),
        joules=SimulatedCost("load", (10.0, 0.1, 0.6, 1e-4, 5.0)),
        noise=0.0,
    )
    frames = [
        batch(BatchingEngine(truth), [cell] * count)
        for count in (1, 4, 16)
        for cell in ((32, 16), (128, 64), (32, 64), (128, 16), (64, 32))
    ]
    fitted = fit.fit_model(as_rows(pd.concat(frames, ignore_index=True)), "m")
    assert [cost.form for cost in fitted.cost_fits] == [RegressionForm.LOAD] * 2
    assert fitted.joules.fitted.coefficients == pytest.approx(truth.joules.coefficients, rel=1e-5)
    assert set(fitted.joules.fitted_ranges) == {"tokens_in", "tokens_out", "running"}
