"""Requests that share the simulator's engine: cheaper in company, slower, and some of them wait."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.simulator.cost_model import CostModel, SimulatedCost
from backends.simulator.engine import MAX_PREFILL_STEP_SECONDS, BatchingEngine
from tests.unit.backends.simulator.engines import PHI, PROPERTY, ended, run, tokens, truths

LOAD = CostModel(
    seconds=SimulatedCost("load", (0.02, 0.001, 0.03, 1e-6, 0.0004)),
    joules=SimulatedCost("load", (10.0, 0.1, 0.6, 1e-4, 5.0)),
)


@pytest.mark.slow
@PROPERTY
@given(truths, tokens, st.integers(2, 30), st.integers(2, 8))
def test_company_never_costs_a_request_energy(truth, i, o, n):
    truth = replace(truth, noise=0.0, max_num_seqs=8)
    engine = BatchingEngine(truth)
    for k in range(n):
        engine.submit_request(f"r{k}", i, o + k)
    for one in ended(run(engine)).values():
        alone = truth.total_joules(i, one.tokens_out)
        assert one.total_joules <= alone * (1 + 1e-9)


@pytest.mark.parametrize("truth", [PHI, LOAD])
def test_batching_lowers_energy_per_request_and_slows_each(truth):
    per_request, slowest = [], []
    for n in (1, 4, 16, 64):
        engine = BatchingEngine(truth)
        for k in range(n):
            engine.submit_request(f"r{k}", 30, 50)
        done = ended(run(engine)).values()
        per_request.append(sum(r.total_joules for r in done) / n)
        slowest.append(max(r.seconds for r in done))
    assert per_request == sorted(per_request, reverse=True)
    assert per_request[-1] < 0.5 * per_request[0]
    assert slowest == sorted(slowest)


def test_equal_requests_in_a_batch_follow_the_load_form_exactly():
    engine, n, i, o = BatchingEngine(LOAD), 8, 40, 25
    for k in range(n):
        engine.submit_request(f"r{k}", i, o)
    b, c = LOAD.joules.all_coefficients, LOAD.seconds.all_coefficients
    for one in ended(run(engine)).values():
        energy = b[0] + b[1] * i + b[2] * o + b[3] * i * o + b[4] * o / n
        seconds = c[0] + c[1] * i + c[2] * o + c[3] * i * o + c[4] * o * (n - 1)
        assert one.total_joules == pytest.approx(energy, rel=1e-9)
        assert one.seconds == pytest.approx(seconds, rel=1e-9)


def test_requests_beyond_the_batch_wait_and_abort_frees_a_place():
    engine = BatchingEngine(replace(PHI, max_num_seqs=2))
    for name in "abc":
        engine.submit_request(name, 10, 20)
    engine.run_step()
    assert (engine.running_requests, engine.waiting_requests) == (2, 1)
    assert engine.kv_usage > 0
    gone = engine.abort_request("a")
    assert gone is not None
    assert gone.aborted
    assert gone.tokens_out == 0
    assert engine.abort_request("a") is None
    assert engine.running_requests == 1
    waiting = engine.abort_request("c")
    assert waiting is not None
    assert (waiting.total_joules, waiting.queue_seconds) == (0.0, waiting.seconds)
    assert set(ended(run(engine))) == {"b"}
    assert (engine.running_requests, engine.waiting_requests, engine.kv_usage) == (0, 0, 0.0)


def test_a_full_cache_makes_requests_wait():
    engine = BatchingEngine(replace(PHI, kv_tokens=100))
    engine.submit_request("a", 40, 20)
    engine.submit_request("b", 40, 20)
    engine.submit_request("huge", 400, 20)
    engine.run_step()
    assert (engine.running_requests, engine.waiting_requests) == (1, 2)
    done = ended(run(engine))
    assert set(done) == {"a", "b", "huge"}
    assert done["b"].queue_seconds == pytest.approx(done["a"].seconds)


def test_others_go_on_decoding_during_a_long_prefill():
    engine = BatchingEngine(PHI)
    engine.submit_request("a", 10, 100)
    while not (step := engine.run_step()).tokens:
        pass
    engine.submit_request("long", 1000, 5)  # seven seconds of prefill
    stall = 0.0
    for step in iter(engine.run_step, None):
        stall = 0.0 if step.tokens else stall + step.duration_seconds
        assert stall <= MAX_PREFILL_STEP_SECONDS + 1e-9 or not engine.running_requests > 1
