"""`joulegate replay`: what would have been chosen, at which cost, and how sure that is."""

import json

import msgspec
import numpy as np
import pytest

from calibration.replay import replay
from calibration.replay import statistics as outcomes
from calibration.replay.decision_log_reader import LoggedDeployment, RecordedRequest
from calibration.replay.replay import ReplayScenario
from calibration.replay.replay_fleet import ReplayFleet
from calibration.replay.scenarios import build_scenarios
from gateway import profile
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.decide import RoutingCandidate, make_decision
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import RequestFeatures
from tests.unit.calibration.replay.decisions import (
    call,
    line,
    options,
    plan,
    random_log,
    report,
    saving,
    write,
)


@pytest.fixture
def log(tmp_path, shipped):
    return random_log(tmp_path / "decisions.jsonl", shipped, np.random.default_rng(5))


def test_a_log_replayed_as_it_was_changes_nothing(log):
    found = report(log)
    assert (found["kind"], found["requests"], found["bad"]) == ("log", 120, [])
    one = saving(found, "own weights", "as recorded")
    assert one["changed_share"]["value"] == 0.0
    assert one["joules_saved_per_request"]["value"] == 0.0
    assert found["profiles"][0]["recorded_lengths"] == 120
    shares = plan(found, "own weights")["shares"]
    assert len([model for model in shares if shares[model]["value"]]) > 1


def test_totals_and_savings_are_those_of_a_plain_loop(log, shipped):
    found = report(log, "--weights", "green:energy=1", "--policy", "hybrid")
    lines = [json.loads(one) for one in log.read_text().splitlines()]
    of = {option.model: option for option in options(shipped)}
    spent, always, seconds = 0.0, 0.0, 0.0
    chosen = []
    for one in lines:
        tokens = one["usage"]["prompt_tokens"], one["usage"]["completion_tokens"]
        told = one["decision"]["tokens"]
        best = make_decision(
            RequestFeatures(tokens[0], told["output"]), [RoutingCandidate(o) for o in of.values()],
            MetricWeights.from_values(energy=1), policy="hybrid",
        ).best_candidate.model  # fmt: skip
        chosen.append(best)
        own = [c["tokens"]["input"] for c in one["decision"]["candidates"]]
        by_model = dict(zip([c["model"] for c in one["decision"]["candidates"]], own, strict=True))
        off = tokens[0] / by_model[one["model"]]

        def priced(model, by_model=by_model, off=off, out=tokens[1]):
            return round(by_model[model] * off), out

        spent += of[best].joules.predict_cost(*priced(best))
        seconds += of[best].seconds.predict_cost(*priced(best))
        always += of["falcon-7b"].joules.predict_cost(*priced("falcon-7b"))
    name = "green, hybrid"
    assert plan(found, name)["total"] == pytest.approx({"joules": spent, "seconds": seconds})
    saved = saving(found, name, "always falcon-7b")
    assert saved["joules_saved_per_request"]["value"] == pytest.approx((always - spent) / 120)
    assert saved["assumes"] == "unchanged load"
    assert plan(found, name)["shares"]["phi-3-mini"]["value"] == pytest.approx(
        chosen.count("phi-3-mini") / 120
    )
    assert plan(found, name)["accuracy"]["value"] == pytest.approx(
        np.mean([of[model].accuracy for model in chosen])
    )


def test_a_seed_gives_the_same_intervals_and_another_others(log):
    one, same, other = (report(log, "--seed", seed) for seed in (1, 1, 2))
    assert one == same
    name = "own weights"
    assert plan(one, name)["joules_per_request"] != plan(other, name)["joules_per_request"]


def test_the_bootstrap_is_the_normal_interval_of_many_requests(log):
    joules = plan(report(log, "--replicates", "4000"), "always phi-3-mini")["joules_per_request"]
    of = (
        profile.load_profile(None)
        .get_model("phi-3-mini")
        .joules.to_cost_function(CostQuantity.JOULES)
    )
    values = [
        of.predict_cost(one["usage"]["prompt_tokens"], one["usage"]["completion_tokens"])
        for one in map(json.loads, log.read_text().splitlines())
    ]
    half = 1.96 * np.std(values) / np.sqrt(len(values))
    low, high = joules["interval_95_requests"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_parameter_uncertainty_is_that_of_the_covariance(shipped):
    requests = [RecordedRequest(200, 100)] * 50
    world = ReplayFleet(
        shipped, {LoggedDeployment(name, name): name for name in shipped.models}, {}
    )
    prices = replay.compute_prices(world, replay.compute_lengths(world, requests))
    chosen = replay.choose_deployments(
        world, requests, ReplayScenario("x", shipped), only="mistral-7b"
    )
    comparison = outcomes.PlanComparison(world, prices, {"always": chosen}, replicates=8000)
    one = comparison.compute_outcome("always").joules
    # All requests are alike, so what is left is the coefficients' part: x' V x.
    assert one.requests.high - one.requests.low == pytest.approx(0.0, abs=1e-9)
    sizes = replay.compute_lengths(world, requests)
    x = np.array([1.0, sizes.tokens_in[0, 1], sizes.tokens_out[0, 1]])
    covariance = np.array(shipped.get_model("mistral-7b").joules.covariance)
    half = 1.96 * np.sqrt(x @ covariance @ x)
    assert (one.both.high - one.both.low) / 2 == pytest.approx(half, rel=0.05)


def test_without_a_covariance_it_says_so(log, tmp_path, shipped):
    bare = {
        name: msgspec.structs.replace(
            entry,
            seconds=msgspec.structs.replace(entry.seconds, covariance=None),
            joules=msgspec.structs.replace(entry.joules, covariance=None),
        )
        for name, entry in shipped.models.items()
    }
    profile.save_profile(bare, tmp_path / "bare.json")
    found = report(log, "--profile", tmp_path / "bare.json")
    joules = plan(found, "own weights")["joules_per_request"]
    assert joules["interval_95_requests_and_profile"] is None
    assert any("no covariance" in note for note in found["profiles"][0]["notes"])


def test_two_profiles_and_two_policies_make_four_plans(log, tmp_path, shipped):
    cheap = dict(shipped.models)
    phi = cheap["phi-3-mini"]
    joules = msgspec.structs.replace(phi.joules, coefficients=[1.0, 0.0, 0.0], covariance=None)
    cheap["phi-3-mini"] = msgspec.structs.replace(phi, joules=joules)
    profile.save_profile(cheap, tmp_path / "cheap.json")
    found = report(
        log, "--profile", "shipped", "--profile", f"cheap={tmp_path / 'cheap.json'}",
        "--policy", "fair-ols", "--policy", "hybrid", "--preset", "auto:energy",
    )  # fmt: skip
    names = [[one["name"] for one in group["plans"]][:2] for group in found["profiles"]]
    assert names == [
        [f"energy, {policy}, {label}" for policy in ("fair-ols", "hybrid")]
        for label in ("shipped", "cheap")
    ]
    shares = found["profiles"][1]["plans"][0]["shares"]
    assert shares["phi-3-mini"]["value"] == 1.0
    assert shares["phi-3-mini"]["interval_95_requests"][0] < 1.0  # Wilson: 120 of 120


def test_prompts_are_counted_as_the_gateway_counts_a_chat(tmp_path, counter):
    text = "Why is the sky blue?"
    path = tmp_path / "prompts.csv"
    path.write_text(f"prompt,max_tokens\n{text},\n{text},5\n")
    found = report(path, "--weights", "accuracy=1")
    assert found["kind"] == "prompts"
    of = profile.load_profile(None).get_model("mistral-7b")
    tokens_in = round((counter.count_tokens(text) + 7) * of.tokens.ratio)
    cost = of.joules.to_cost_function(CostQuantity.JOULES)
    expected = sum(
        cost.predict_cost(tokens_in, of.to_output_model().predict_output_tokens(tokens_in, limit))
        for limit in (8000, 5)
    )
    assert plan(found, "accuracy=1")["total"]["joules"] == pytest.approx(expected)
    assert "savings" in found["profiles"][0]
    assert not any(one["against"] == "as recorded" for one in found["profiles"][0]["savings"])


def test_token_ratios_move_lengths_between_models(shipped):
    models = dict(shipped.models)
    for name, ratio in (("phi-3-mini", 1.25), ("mistral-7b", 1.5), ("falcon-7b", 1.0)):
        models[name] = msgspec.structs.replace(models[name], tokens=profile.TokenRatio(ratio))
    world = ReplayFleet(
        profile.CostProfile(models, "v"),
        {LoggedDeployment(name, name): name for name in models},
        {},
    )
    phi = LoggedDeployment("phi-3-mini", "phi-3-mini")
    one = RecordedRequest(1000, counted_for=phi, prompt_tokens=1010, tokens_out=7, answered=phi)
    assert world.build_features(one).tokens_in == 800
    sizes = replay.compute_lengths(world, [one])
    assert sizes.tokens_in.tolist() == [[1010, 1212, 808]]
    assert sizes.tokens_out.tolist() == [[7, 7, 7]]
    assert replay.compute_lengths(world, [one], predicted=True).tokens_in.tolist() == [
        [1000, 1200, 800]
    ]


def test_a_model_that_a_request_outgrows_is_priced_and_told_of(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 3000}) + "\n")
    found = report(path)
    assert plan(found, "always falcon-7b")["total"]["joules"] > 0
    assert plan(found, "own weights")["shares"]["falcon-7b"]["value"] == 0.0
    notes = found["profiles"][0]["notes"]
    assert any("1 requests exceed the context of falcon-7b" in note for note in notes)


def test_what_could_not_serve_then_cannot_now(tmp_path, shipped):
    able, one = (line(shipped, weights=MetricWeights.from_values(accuracy=1)) for _ in range(2))
    one["decision"]["candidates"] = [
        c for c in one["decision"]["candidates"] if c["model"] != "phi-3-mini"
    ]
    one["decision"]["excluded"] = [
        {"model": "phi-3-mini", "deployment": "phi-3-mini", "reason": "down: no usable backend"}
    ]
    # Where it was a candidate it wins, so it is known, and kept from the others by that alone.
    path = write(tmp_path / "log.jsonl", [able] * 2 + [one] * 6)
    shares = plan(report(path, "--preset", "auto:energy"), "energy")["shares"]
    assert shares["phi-3-mini"]["value"] == 0.25


def test_scenarios_are_named_by_what_differs():
    names = [one.name for one in build_scenarios(["a:energy=2,time=2", "own"], ["time"], [], [])]
    assert names == ["a", "own weights", "time"]
    assert build_scenarios(["energy=2,time=2"], [], [], [])[0].weights == MetricWeights.from_values(
        0, 0.5, 0.5
    )
    assert [one.name for one in build_scenarios([], [], ["hybrid"], [])] == ["own weights, hybrid"]


def test_the_table_says_what_it_stands_on(log):
    code, text, _ = call(log, "--preset", "energy")
    assert code == 0
    assert "saved" not in "".join(line for line in text.splitlines() if "%" in line)
    for words in ("J per request", "J saved per request", "at unchanged load", "always falcon-7b",
                  "as recorded", "over requests", "coefficients", "measured then"):  # fmt: skip
        assert words in text
    assert "\x1b" not in text


def test_names_are_shown_as_they_are(log, tmp_path, shipped):
    path = tmp_path / "odd.json"
    profile.save_profile({**shipped.models, "[/x]": shipped.models["falcon-7b"]}, path)
    code, text, complaint = call(
        log, "--weights", "[bold]:energy=1", "--profile", path,
        *("--model", "[/x]", "--model", "phi-3-mini", "--context", "[/x]=2048"),
    )  # fmt: skip
    assert code == 0, complaint
    assert "[bold]" in text
    assert "always [/x]" in text
