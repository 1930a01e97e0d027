"""The library's entries: found by name, made into a profile's, and obeyed by the simulator."""

from statistics import median

import msgspec
import pytest

from backends.simulator.cost_model import CostModel
from backends.simulator.engine import BatchingEngine
from gateway import profile
from gateway.library.model_profile import build_model_profile
from gateway.library.shipped import LibraryError, load_library, name_entry
from gateway.scheduling.cost import CostQuantity, RegressionForm

LIBRARY = load_library()
every_entry = pytest.mark.parametrize("name", LIBRARY.entries)


@every_entry
def test_an_entry_is_named_for_what_it_is(name):
    entry = LIBRARY.entries[name]
    assert name == name_entry(entry.model_id, entry.gpu, entry.gpus, entry.task)
    assert LIBRARY.find_entry(name.upper()) == (name, entry)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("qwen/Qwen3-14B@h100", "Qwen3-14B@H100"),
        ("gpt-oss-20b@H100", "gpt-oss-20b@H100:gpqa"),
        ("Qwen3-14B@B200", "Qwen3-14B@B200"),
        ("qwen3-14b@b200:gpqa", "Qwen3-14B@B200:gpqa"),
    ],
)
def test_an_entry_is_found_without_what_goes_without_saying(asked, found):
    assert LIBRARY.find_entry(asked)[0] == found


def test_an_unknown_name_is_told_what_comes_close():
    with pytest.raises(LibraryError, match=r"no 'qwen3-14b@a100'.*close: .*Qwen3-14B@H100"):
        LIBRARY.find_entry("qwen3-14b@a100")


@every_entry
def test_an_entry_makes_a_valid_profile_that_predicts_it(name, tmp_path):
    entry = LIBRARY.entries[name]
    made = build_model_profile(LIBRARY, name)
    profile.save_profile({"m": made}, tmp_path / "profile.json")
    model = profile.load_profile(tmp_path / "profile.json").get_model("m")
    for running in (0, 7, 31):
        joules, seconds = (
            getattr(model, quantity.value)
            .to_cost_function(quantity)
            .cost_per_output_token(0.0, running)
            for quantity in (CostQuantity.JOULES, CostQuantity.SECONDS)
        )
        assert joules == pytest.approx(entry.joules_per_token(running))
        assert seconds == pytest.approx(entry.seconds_per_token(running))


@every_entry
def test_every_coefficient_says_where_it_comes_from(name):
    made = build_model_profile(LIBRARY, name)
    for quantity in ("seconds", "joules"):
        assert list(made.provenance[quantity]) == ["b0", "b1", "b2", "b3", "b4"]
        assert "ASSUMED" in made.provenance[quantity]["b1"]
        assert "extrapolated below" in made.provenance[quantity]["b4"]
    assert "ML.ENERGY leaderboard, 2026-02" in made.provenance["source"]
    assert "ASSUMED" in made.provenance["idle_watts"]
    assert made.provenance["accuracy"].startswith("ASSUMED 0.5")


@every_entry
def test_an_entry_is_physical(name):
    entry = LIBRARY.entries[name]
    gpu = LIBRARY.gpus[entry.gpu]
    for running in (0.0, entry.batch[0] - 1.0):
        watts = (1 + running) * entry.joules_per_token(running) / entry.seconds_per_token(running)
        assert LIBRARY.idle_watts(entry) < watts < 1.05 * entry.gpus * gpu.board_watts
    # A prompt token is computed beside others, so it is cheaper than one that is generated alone.
    assert 0.0 < entry.seconds[1] < 0.1 * entry.seconds_per_token(0)
    assert 0.0 < entry.joules[1] < 0.1 * entry.joules_per_token(0)


def test_the_prompts_arithmetic_by_hand():
    entry = LIBRARY.entries["Qwen3-14B@H100"]
    seconds = 2 * 14.8e9 / (989e12 * 0.4)
    assert entry.seconds[1] == pytest.approx(seconds, rel=1e-5)
    assert entry.joules[1] == pytest.approx(seconds * 700.0, rel=1e-5)
    fp8 = LIBRARY.entries["Llama-3.1-405B-Instruct-FP8@8xH100"]
    assert fp8.seconds[1] == pytest.approx(2 * 406e9 / (8 * 2 * 989e12 * 0.4), rel=1e-5)


def test_what_a_model_already_has_is_kept():
    known = profile.ModelProfile(
        accuracy=profile.AccuracyProfile(0.8, {"maths": 0.7}),
        tokens=profile.TokenRatio(1.2),
        output=profile.OutputCoefficients(0.1, 90.0),
        seconds=profile.CostRegression(RegressionForm.ADDITIVE, [0.0, 0.0, 0.1]),
        joules=profile.CostRegression(RegressionForm.ADDITIVE, [0.0, 0.0, 9.0]),
        provenance={"accuracy": "scores.csv"},
    )
    made = build_model_profile(LIBRARY, "Qwen3-14B@H100", before=known)
    assert (made.accuracy, made.tokens, made.output) == (known.accuracy, known.tokens, known.output)
    assert made.provenance["accuracy"] == "scores.csv"
    assert made.provenance["tokens"] == "kept from the profile before"
    given = build_model_profile(LIBRARY, "Qwen3-14B@H100", before=known, accuracy=0.9)
    assert given.accuracy == profile.AccuracyProfile(0.9, {"maths": 0.7})


def test_a_poor_entry_says_so_first():
    made = build_model_profile(LIBRARY, "Qwen3-30B-A3B-Instruct-2507@H100")
    assert made.provenance["weakness"].startswith("a point left out is missed on average in joules")
    good = build_model_profile(LIBRARY, "Qwen3-14B@H100")
    assert good.provenance["weakness"].startswith("nothing was measured below")


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("name", ["Qwen3-14B@H100", "Llama-3.1-70B-Instruct@4xH100"])
def test_the_simulator_obeys_an_entry(name, batch):
    entry = LIBRARY.entries[name]
    truth = CostModel.from_profile(msgspec.to_builtins(build_model_profile(LIBRARY, name)))
    engine = BatchingEngine(truth)
    for number in range(batch):
        engine.submit_request(str(number), 640, 200)
    full = []
    while (step := engine.run_step()) is not None:
        if len(step.tokens) == batch:
            full.append(step)
    joules = median(step.joules for step in full) / batch
    assert joules == pytest.approx(entry.joules_per_token(batch - 1), rel=0.01)
    seconds = median(step.duration_seconds for step in full)
    assert seconds == pytest.approx(entry.seconds_per_token(batch - 1), rel=0.01)


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_a_simulated_batch_spends_what_the_form_says(batch):
    model = build_model_profile(LIBRARY, "Qwen3-14B@H100")
    engine = BatchingEngine(CostModel.from_profile(msgspec.to_builtins(model)))
    for number in range(batch):
        engine.submit_request(str(number), 100, 300)
    while engine.run_step() is not None:
        pass
    joules = model.joules.to_cost_function(CostQuantity.JOULES).predict_cost(100, 300, batch - 1)
    assert engine.microjoules / 1e6 == pytest.approx(batch * joules, rel=0.02)


def test_the_simulator_draws_an_entrys_idle_watts():
    truth = CostModel.from_profile(
        msgspec.to_builtins(build_model_profile(LIBRARY, "Llama-3.1-70B-Instruct@4xH100"))
    )
    assert truth.idle_watts == 300.0
    engine = BatchingEngine(truth)
    engine.advance_idle(10.0)
    assert engine.microjoules == 3_000_000_000
