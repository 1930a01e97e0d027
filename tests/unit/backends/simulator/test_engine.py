"""The simulator's engine: exact alone, and conserving always."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.simulator.cost_model import MAX_CHUNK_SECONDS, CostModel, SimulatedCost
from backends.simulator.engine import BatchingEngine
from tests.unit.backends.simulator.engines import PHI, PROPERTY, ended, run, tokens, truths


def form(cost: SimulatedCost, i: int, o: int, *, energy: bool) -> float:
    b = [*cost.coefficients, 0.0, 0.0][:5]
    product = o * (i + o / 2) if "context" in cost.form else i * o
    return b[0] + b[1] * i + b[2] * o + b[3] * product + (b[4] * o if energy else 0.0)


@PROPERTY
@given(truths, tokens, tokens)
def test_a_request_alone_takes_exactly_its_forms(truth, i, o):
    truth = replace(truth, noise=0.0)
    seconds, joules = (
        form(truth.seconds, i, o, energy=False),
        form(truth.joules, i, o, energy=True),
    )
    assume(seconds > 1e-3)
    assume(joules > 1e-3)
    assume(seconds < 3000)  # keeps the number of steps small
    engine = BatchingEngine(truth)
    engine.submit_request("a", i, o)
    steps = run(engine)
    one = ended(steps)["a"]
    assert sum(s.duration_seconds for s in steps) == pytest.approx(seconds, rel=1e-9)
    assert one.seconds == pytest.approx(seconds, rel=1e-9)
    assert one.total_joules == pytest.approx(joules, rel=1e-9)
    assert sum(s.joules for s in steps) == pytest.approx(joules, rel=1e-9)
    assert one.microjoules == pytest.approx(joules * 1e6, abs=1.01)
    assert (one.queue_seconds, one.tokens_out, one.aborted) == (0.0, o, False)
    assert one.seconds >= one.first_token_seconds > 0
    assert truth.total_seconds(i, o) == pytest.approx(seconds, rel=1e-12)
    assert truth.total_joules(i, o) == pytest.approx(joules, rel=1e-12)


def test_the_published_negative_intercept_is_taken_out_of_decode():
    engine = BatchingEngine(PHI)
    engine.submit_request("a", 1, 10)
    steps = run(engine)
    assert all(s.duration_seconds > 0 for s in steps)
    assert ended(steps)["a"].seconds == pytest.approx(-0.0249 + 0.0071 + 0.468, rel=1e-9)


def test_noise_is_one_factor_per_request():
    truth = replace(PHI, noise=0.1)
    engine, rng = BatchingEngine(truth, seed=7), Random(7)
    engine.submit_request("a", 20, 30)
    one = ended(run(engine))["a"]
    time_factor, energy_factor = (1 + 0.1 * rng.gauss(0, 1) for _ in range(2))
    assert one.seconds == pytest.approx(PHI.total_seconds(20, 30) * time_factor, rel=1e-9)
    assert one.total_joules == pytest.approx(PHI.total_joules(20, 30) * energy_factor, rel=1e-9)


scripts = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), tokens, st.integers(1, 40)),
        st.tuples(st.just("step"), st.integers(1, 30), st.just(0)),
        st.tuples(st.just("abort"), st.integers(0, 10), st.just(0)),
        st.tuples(st.just("idle"), st.floats(0.0, 100.0), st.just(0)),
        st.tuples(st.just("truth"), st.floats(0.5, 3.0), st.just(0)),
    ),
    max_size=25,
)


def play(truth: CostModel, script, seed: int = 1):
    """Run a script to its end; every step and every request's truth."""
    engine = BatchingEngine(truth, seed)
    steps, spent, names = [], [], []
    for verb, a, b in script:
        if verb == "submit":
            names.append(f"r{len(names)}")
            engine.submit_request(names[-1], a, b)
        elif verb == "step":
            steps += [s for s in (engine.run_step() for _ in range(a)) if s is not None]
        elif verb == "abort" and names:
            gone = engine.abort_request(names[a % len(names)])
            spent += [gone] if gone else []
        elif verb == "idle":
            engine.advance_idle(a)
        elif verb == "truth":
            engine.set_cost_model(truth.scale_costs(seconds=a, joules=a))
    steps += run(engine)
    return engine, steps, spent + list(ended(steps).values()), names


@pytest.mark.slow
@PROPERTY
@given(truths, scripts)
def test_energy_is_conserved_to_the_microjoule(truth, script):
    engine, steps, requests, names = play(truth, script)
    assert sum(r.microjoules for r in requests) + engine.idle_microjoules == engine.microjoules
    assert sum(s.microjoules for s in steps) + engine.idle_microjoules == engine.microjoules
    assert all(r.microjoules == pytest.approx(r.total_joules * 1e6, abs=1.01) for r in requests)
    assert sorted(r.request_id for r in requests) == sorted(names)
    assert (engine.running_requests, engine.waiting_requests, engine.kv_usage) == (0, 0, 0.0)


def longest(truth: CostModel) -> float:
    """A step that yields no token: a chunk of each prompt, and the intercept of those that begin.

    The scripts make a truth up to three times as slow; noise is within a factor of two here.
    """
    slow = 3.0 * 2.0
    chunk = max(MAX_CHUNK_SECONDS, slow * truth.seconds.all_coefficients[1])
    together = 8 if truth.seconds.has_load else 1
    return (
        together * chunk
        + slow * (abs(truth.seconds.all_coefficients[0]) + 600 * truth.seconds.all_coefficients[1])
        + 1e-9
    )


@pytest.mark.slow
@PROPERTY
@given(truths, scripts)
def test_nothing_is_ever_negative_and_no_step_is_long(truth, script):
    _, steps, requests, _ = play(truth, script)
    for step in steps:
        assert step.duration_seconds > 0
        assert step.joules >= 0
        assert step.microjoules >= 0
        if not step.tokens:
            assert step.duration_seconds <= longest(truth)
    for r in requests:
        assert min(r.prefill_joules, r.decode_joules, r.queue_seconds, r.seconds) >= 0
        assert r.seconds >= r.first_token_seconds >= 0


@pytest.mark.slow
@PROPERTY
@given(truths, scripts)
def test_the_same_seed_and_calls_give_the_same_run(truth, script):
    assert play(truth, script)[1:] == play(truth, script)[1:]


def test_a_replaced_truth_counts_for_those_who_come_later():
    engine = BatchingEngine(PHI)
    engine.submit_request("before", 10, 10)
    engine.run_step()
    engine.set_cost_model(PHI.scale_costs(seconds=2.0, joules=3.0))
    before = ended(run(engine))["before"]
    engine.submit_request("after", 10, 10)
    after = ended(run(engine))["after"]
    assert after.seconds == pytest.approx(2 * before.seconds)
    assert after.total_joules == pytest.approx(3 * before.total_joules)


def test_idling_costs_idle_power():
    engine = BatchingEngine(replace(PHI, idle_watts=50.0))
    engine.advance_idle(2.5)
    assert (engine.idle_microjoules, engine.microjoules) == (125_000_000, 125_000_000)
    assert engine.seconds == 2.5
    assert engine.run_step() is None
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="idle time"):
            engine.advance_idle(wrong)


def test_what_cannot_be_submitted_is_refused():
    engine = BatchingEngine(PHI)
    engine.submit_request("a", 1, 1)
    with pytest.raises(ValueError, match="already"):
        engine.submit_request("a", 1, 1)
    for counts in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            engine.submit_request("b", *counts)
