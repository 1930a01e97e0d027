"""The simulator's engine: exact alone, conserving always, cheaper in company."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backends.simulator.engine import MAX_PREFILL_STEP_SECONDS, Engine, RequestTruth, Step
from backends.simulator.truth import Cost, Truth

PHI = Truth(
    seconds=Cost("additive", (-0.0249, 0.0071, 0.0468)),
    joules=Cost("additive", (40.90, 0.337, 5.787)),
)
LOAD = Truth(
    seconds=Cost("load", (0.02, 0.001, 0.03, 1e-6, 0.0004)),
    joules=Cost("load", (10.0, 0.1, 0.6, 1e-4, 5.0)),
)

# The machine may be busy: a property has no deadline.
PROPERTY = settings(deadline=None, max_examples=60)

# Zero or far enough from it that a relative 1e-9 means something.
positive = st.floats(1e-4, 20.0)
intercepts = st.floats(-2.0, 60.0)
tokens = st.integers(1, 600)


@st.composite
def costs(draw):
    form = draw(st.sampled_from(["additive", "interaction", "load"]))
    coefficients = [draw(intercepts), draw(positive), draw(positive)]
    if form != "additive":
        coefficients.append(draw(st.floats(0.0, 0.01)))
    if form == "load":
        coefficients.append(draw(st.floats(0.0, 5.0)))
    return Cost(form, tuple(coefficients))


truths = st.builds(
    Truth,
    seconds=costs(),
    joules=costs(),
    shared_fraction=st.floats(0.0, 1.0),
    slowdown_per_running=st.floats(0.0, 0.2),
    noise=st.sampled_from([0.0, 0.2]),
    max_num_seqs=st.integers(1, 8),
)


def run(engine: Engine) -> list[Step]:
    steps = []
    while (step := engine.step()) is not None:
        steps.append(step)
    return steps


def ended(steps: list[Step]) -> dict[str, RequestTruth]:
    return {truth.request_id: truth for step in steps for truth in step.finished}


def form(cost: Cost, i: int, o: int, *, energy: bool) -> float:
    b = [*cost.coefficients, 0.0, 0.0][:5]
    return b[0] + b[1] * i + b[2] * o + b[3] * i * o + (b[4] * o if energy else 0.0)


@PROPERTY
@given(truths, tokens, tokens)
def test_a_request_alone_takes_exactly_its_forms(truth, i, o):
    truth = replace(truth, noise=0.0)
    seconds, joules = form(truth.seconds, i, o, energy=False), form(truth.joules, i, o, energy=True)
    assume(seconds > 1e-3)
    assume(joules > 1e-3)
    assume(seconds < 3000)  # keeps the number of steps small
    engine = Engine(truth)
    engine.submit("a", i, o)
    steps = run(engine)
    one = ended(steps)["a"]
    assert sum(s.duration_seconds for s in steps) == pytest.approx(seconds, rel=1e-9)
    assert one.seconds == pytest.approx(seconds, rel=1e-9)
    assert one.joules == pytest.approx(joules, rel=1e-9)
    assert sum(s.joules for s in steps) == pytest.approx(joules, rel=1e-9)
    assert one.microjoules == pytest.approx(joules * 1e6, abs=0.6)
    assert (one.queue_seconds, one.tokens_out, one.aborted) == (0.0, o, False)
    assert one.seconds >= one.first_token_seconds > 0
    assert truth.total_seconds(i, o) == pytest.approx(seconds, rel=1e-12)
    assert truth.total_joules(i, o) == pytest.approx(joules, rel=1e-12)


def test_the_published_negative_intercept_is_taken_out_of_decode():
    engine = Engine(PHI)
    engine.submit("a", 1, 10)
    steps = run(engine)
    assert all(s.duration_seconds > 0 for s in steps)
    assert ended(steps)["a"].seconds == pytest.approx(-0.0249 + 0.0071 + 0.468, rel=1e-9)


def test_noise_is_one_factor_per_request():
    truth = replace(PHI, noise=0.1)
    engine, rng = Engine(truth, seed=7), Random(7)
    engine.submit("a", 20, 30)
    one = ended(run(engine))["a"]
    time_factor, energy_factor = (1 + 0.1 * rng.gauss(0, 1) for _ in range(2))
    assert one.seconds == pytest.approx(PHI.total_seconds(20, 30) * time_factor, rel=1e-9)
    assert one.joules == pytest.approx(PHI.total_joules(20, 30) * energy_factor, rel=1e-9)


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


def play(truth: Truth, script, seed: int = 1):
    """Run a script to its end; every step and every request's truth."""
    engine = Engine(truth, seed)
    steps, spent, names = [], [], []
    for verb, a, b in script:
        if verb == "submit":
            names.append(f"r{len(names)}")
            engine.submit(names[-1], a, b)
        elif verb == "step":
            steps += [s for s in (engine.step() for _ in range(a)) if s is not None]
        elif verb == "abort" and names:
            gone = engine.abort(names[a % len(names)])
            spent += [gone] if gone else []
        elif verb == "idle":
            engine.idle(a)
        elif verb == "truth":
            engine.set_truth(truth.scaled(seconds=a, joules=a))
    steps += run(engine)
    return engine, steps, spent + list(ended(steps).values()), names


@PROPERTY
@given(truths, scripts)
def test_energy_is_conserved_to_the_microjoule(truth, script):
    engine, steps, requests, names = play(truth, script)
    assert sum(r.microjoules for r in requests) + engine.idle_microjoules == engine.microjoules
    assert sum(s.microjoules for s in steps) + engine.idle_microjoules == engine.microjoules
    assert all(r.microjoules == pytest.approx(r.joules * 1e6, abs=0.6) for r in requests)
    assert sorted(r.request_id for r in requests) == sorted(names)
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)


@PROPERTY
@given(truths, scripts)
def test_nothing_is_ever_negative_and_no_step_is_long(truth, script):
    _, steps, requests, _ = play(truth, script)
    for step in steps:
        assert step.duration_seconds > 0
        assert step.joules >= 0
        assert step.microjoules >= 0
        if not step.tokens:
            assert step.duration_seconds <= MAX_PREFILL_STEP_SECONDS + 1e-12
    for r in requests:
        assert min(r.prefill_joules, r.decode_joules, r.queue_seconds, r.seconds) >= 0
        assert r.seconds >= r.first_token_seconds >= 0


@PROPERTY
@given(truths, scripts)
def test_the_same_seed_and_calls_give_the_same_run(truth, script):
    assert play(truth, script)[1:] == play(truth, script)[1:]


@PROPERTY
@given(truths, tokens, st.integers(2, 30), st.integers(2, 8))
def test_company_never_costs_a_request_energy(truth, i, o, n):
    truth = replace(truth, noise=0.0, max_num_seqs=8)
    engine = Engine(truth)
    for k in range(n):
        engine.submit(f"r{k}", i, o + k)
    for one in ended(run(engine)).values():
        alone = truth.total_joules(i, one.tokens_out)
        assert one.joules <= alone * (1 + 1e-9)


@pytest.mark.parametrize("truth", [PHI, LOAD])
def test_batching_lowers_energy_per_request_and_slows_each(truth):
    per_request, slowest = [], []
    for n in (1, 4, 16, 64):
        engine = Engine(truth)
        for k in range(n):
            engine.submit(f"r{k}", 30, 50)
        done = ended(run(engine)).values()
        per_request.append(sum(r.joules for r in done) / n)
        slowest.append(max(r.seconds for r in done))
    assert per_request == sorted(per_request, reverse=True)
    assert per_request[-1] < 0.5 * per_request[0]
    assert slowest == sorted(slowest)


def test_equal_requests_in_a_batch_follow_the_load_form_exactly():
    engine, n, i, o = Engine(LOAD), 8, 40, 25
    for k in range(n):
        engine.submit(f"r{k}", i, o)
    b, c = LOAD.joules.b, LOAD.seconds.b
    for one in ended(run(engine)).values():
        energy = b[0] + b[1] * i + b[2] * o + b[3] * i * o + b[4] * o / n
        seconds = c[0] + c[1] * i + c[2] * o + c[3] * i * o + c[4] * o * (n - 1)
        assert one.joules == pytest.approx(energy, rel=1e-9)
        assert one.seconds == pytest.approx(seconds, rel=1e-9)


def test_requests_beyond_the_batch_wait_and_abort_frees_a_place():
    engine = Engine(replace(PHI, max_num_seqs=2))
    for name in "abc":
        engine.submit(name, 10, 20)
    engine.step()
    assert (engine.running, engine.waiting) == (2, 1)
    assert engine.kv_usage > 0
    gone = engine.abort("a")
    assert gone is not None
    assert gone.aborted
    assert gone.tokens_out == 0
    assert engine.abort("a") is None
    assert engine.running == 1
    waiting = engine.abort("c")
    assert waiting is not None
    assert (waiting.joules, waiting.queue_seconds) == (0.0, waiting.seconds)
    assert set(ended(run(engine))) == {"b"}
    assert (engine.running, engine.waiting, engine.kv_usage) == (0, 0, 0.0)


def test_a_full_cache_makes_requests_wait():
    engine = Engine(replace(PHI, kv_tokens=100))
    engine.submit("a", 40, 20)
    engine.submit("b", 40, 20)
    engine.submit("huge", 400, 20)
    engine.step()
    assert (engine.running, engine.waiting) == (1, 2)
    done = ended(run(engine))
    assert set(done) == {"a", "b", "huge"}
    assert done["b"].queue_seconds == pytest.approx(done["a"].seconds)


def test_others_go_on_decoding_during_a_long_prefill():
    engine = Engine(PHI)
    engine.submit("a", 10, 100)
    while not (step := engine.step()).tokens:
        pass
    engine.submit("long", 1000, 5)  # seven seconds of prefill
    stall = 0.0
    for step in iter(engine.step, None):
        stall = 0.0 if step.tokens else stall + step.duration_seconds
        assert stall <= MAX_PREFILL_STEP_SECONDS + 1e-9 or not engine.running > 1


def test_a_replaced_truth_counts_for_those_who_come_later():
    engine = Engine(PHI)
    engine.submit("before", 10, 10)
    engine.step()
    engine.set_truth(PHI.scaled(seconds=2.0, joules=3.0))
    before = ended(run(engine))["before"]
    engine.submit("after", 10, 10)
    after = ended(run(engine))["after"]
    assert after.seconds == pytest.approx(2 * before.seconds)
    assert after.joules == pytest.approx(3 * before.joules)


def test_idling_costs_idle_power():
    engine = Engine(replace(PHI, idle_watts=50.0))
    engine.idle(2.5)
    assert (engine.idle_microjoules, engine.microjoules) == (125_000_000, 125_000_000)
    assert engine.seconds == 2.5
    assert engine.step() is None
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="idle time"):
            engine.idle(wrong)


def test_what_cannot_be_submitted_is_refused():
    engine = Engine(PHI)
    engine.submit("a", 1, 1)
    with pytest.raises(ValueError, match="already"):
        engine.submit("a", 1, 1)
    for counts in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            engine.submit("b", *counts)


def test_answers_have_the_models_mean_length():
    rng = Random(3)
    drawn = [PHI.draw_tokens_out(30, rng) for _ in range(4000)]
    mean = 1.028 * 30 + 44.12
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.03)
    assert len(set(drawn)) > 50
    assert replace(PHI, output_sd=0.0).draw_tokens_out(30, rng) == round(mean)


def test_a_truth_comes_from_a_profile_entry():
    entry = {
        "accuracy": {"default": 0.685},
        "output": {"slope": 0.028, "intercept": 44.12},
        "seconds": {"form": "additive", "coefficients": [1, 2, 3], "n": 5},
        "joules": {"form": "interaction", "coefficients": [1, 2, 3, 4]},
    }
    truth = Truth.of_profile(entry, idle_watts=10.0)
    assert truth.seconds == Cost("additive", (1.0, 2.0, 3.0))
    assert truth.joules == Cost("interaction", (1.0, 2.0, 3.0, 4.0))
    assert (truth.output, truth.idle_watts) == ((0.028, 44.12), 10.0)
    with pytest.raises(ValueError, match="has 3 coefficients"):
        Cost("additive", (1.0, 2.0))
