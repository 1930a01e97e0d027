"""The physical step model: what a pass costs, whose it is, and what a batch makes of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.simulator.cost_model import CostModel
from backends.simulator.engine import BatchingEngine
from backends.simulator.step_model import StepCost
from tests.unit.backends.simulator.engines import PROPERTY, ended, run

JOULES = StepCost(5.0, 0.1, 0.05, 1e-4)
SECONDS = StepCost(0.01, 0.0001, 0.00005, 1e-7)
TRUTH = CostModel(SECONDS, JOULES, context=100_000, kv_tokens=1_000_000)
parts = st.floats(0.0, 10.0)
costs = st.builds(StepCost, st.floats(0.001, 10.0), parts, parts, st.floats(0.0, 0.01))


@PROPERTY
@given(costs, costs, st.integers(1, 5000), st.integers(1, 60))
def test_a_request_alone_costs_its_steps(seconds, joules, tokens_in, tokens_out):
    truth = replace(TRUTH, seconds=seconds, joules=joules)
    engine = BatchingEngine(truth)
    engine.submit_request("a", tokens_in, tokens_out)
    one = ended(run(engine))["a"]
    assert one.total_joules == pytest.approx(truth.total_joules(tokens_in, tokens_out), rel=1e-9)
    assert one.seconds == pytest.approx(truth.total_seconds(tokens_in, tokens_out), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 8, 64])
def test_company_shares_the_fixed_part_of_each_step_and_nothing_else(n):
    engine = BatchingEngine(TRUTH)
    for k in range(n):
        engine.submit_request(f"r{k}", 20, 50)
    steps = run(engine)
    assert len(steps) == 50  # the prompt's own step yields the first token
    read = 50 * (20 + 25)
    for one in ended(steps).values():
        own = 0.05 * 20 + 0.1 * 50 + 1e-4 * read
        assert one.total_joules == pytest.approx(5.0 / n * 50 + own, rel=1e-9)
        lasted = 50 * (0.01 + n * 0.0001) + n * (0.00005 * 20 + 1e-7 * read)
        assert one.seconds == pytest.approx(lasted, rel=1e-9)


def test_a_step_is_what_is_in_it():
    """One decodes while the other's prompt is computed: the fixed part is halved."""
    engine = BatchingEngine(TRUTH)
    engine.submit_request("a", 100, 10)
    engine.run_step()
    engine.submit_request("b", 200, 10)
    step = engine.run_step()
    decode = 0.1 + 1e-4 * 101.5
    prompt = 0.1 + 0.05 * 200 + 1e-4 * 200.5
    assert step.joules == pytest.approx(5.0 + decode + prompt, rel=1e-12)
    assert step.tokens == [("a", 1), ("b", 1)]
    assert step.started == ["b"]
    gone = engine.abort_request("b")
    assert gone.total_joules == pytest.approx(2.5 + prompt, rel=1e-12)


def test_long_prompts_come_in_chunks_beside_those_that_decode():
    engine = BatchingEngine(TRUTH)
    engine.submit_request("a", 10, 100)
    engine.run_step()
    engine.submit_request("long", 5000, 1)
    steps = [engine.run_step() for _ in range(3)]
    assert [len(step.tokens) for step in steps] == [1, 1, 2]
    assert steps[0].duration_seconds == pytest.approx(0.01 + 0.0001 + 2047 * 0.00005, rel=0.01)


def test_a_cached_prompt_is_not_computed():
    joules = []
    for cached in (0, 900):
        engine = BatchingEngine(TRUTH)
        engine.submit_request("a", 1000, 10, cached)
        joules.append(ended(run(engine))["a"].total_joules)
    assert joules[0] - joules[1] == pytest.approx(900 * 0.05)
    with pytest.raises(ValueError, match="last prompt token"):
        BatchingEngine(TRUTH).submit_request("a", 10, 1, 10)


def test_drafted_tokens_are_computed_whether_they_are_right_or_not():
    for acceptance, steps in ((0.0, 41), (1.0, 11)):
        truth = replace(TRUTH, draft_tokens=3, acceptance=acceptance)
        engine = BatchingEngine(truth)
        engine.submit_request("a", 20, 41)
        made = run(engine)
        assert len(made) == steps
        assert sum(count for step in made for _, count in step.tokens) == 41
        own = 0.05 * 20 + 0.1 * (1 + 4 * (steps - 1))
        context = ended(made)["a"].total_joules - 5.0 * steps - own
        assert 0.0 < context < 1e-4 * 61 * steps


def test_a_cache_too_small_throws_the_youngest_out_who_computes_all_anew():
    engine = BatchingEngine(replace(TRUTH, preempts=True, kv_tokens=200))
    engine.submit_request("old", 80, 60)
    engine.submit_request("young", 80, 60)
    done = ended(run(engine))
    assert engine.preemptions == done["young"].preemptions == 1
    assert done["old"].preemptions == 0
    assert done["young"].seconds > done["old"].seconds
    assert done["young"].total_joules > done["old"].total_joules
    assert sum(one.microjoules for one in done.values()) == engine.microjoules
    assert engine.kv_usage == 0.0


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=12),
    st.integers(0, 3),
    st.booleans(),
)
def test_it_conserves_whatever_it_does(requests, drafts, preempts):
    engine = BatchingEngine(replace(TRUTH, draft_tokens=drafts, preempts=preempts, kv_tokens=700))
    steps = []
    for n, (tokens_in, tokens_out) in enumerate(requests):
        engine.submit_request(str(n), tokens_in, tokens_out)
        step = engine.run_step()
        steps += [step] if step else []
    steps += run(engine)
    done = ended(steps)
    assert len(done) == len(requests)
    assert sum(one.microjoules for one in done.values()) == engine.microjoules
    assert sum(step.joules for step in steps) == pytest.approx(
        sum(one.total_joules for one in done.values()), rel=1e-9
    )
    for n, (_, tokens_out) in enumerate(requests):
        assert done[str(n)].tokens_out == tokens_out
        assert done[str(n)].microjoules == pytest.approx(done[str(n)].total_joules * 1e6, abs=1.01)
    assert (engine.running_requests, engine.waiting_requests, engine.kv_usage) == (0, 0, 0.0)


@pytest.mark.parametrize("wrong", [(-1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (float("inf"), 0.0, 0.0)])
def test_parts_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="step"):
        StepCost(*wrong)


def test_a_scaled_cost_is_that_much_dearer():
    assert JOULES.scale_by(2.0).total_alone(3000, 50, 2048) == pytest.approx(
        2.0 * JOULES.total_alone(3000, 50, 2048)
    )
