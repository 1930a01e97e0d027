"""The pictures' winners are the scheduler's own."""

import numpy as np
import pytest

from calibration.plots import choices, lengths_map, predicted, sensitivity, style
from calibration.plots import plot_data as material
from gateway.profile import AccuracyProfile, CostRegression, ModelProfile, TokenRatio
from gateway.scheduling.cost import RegressionForm
from gateway.scheduling.decide import Candidate, make_decision
from gateway.scheduling.decision import MetricWeights
from gateway.scheduling.features import OutputModel, RequestFeatures


def model(accuracy, seconds, joules, ratio=1.0):
    return ModelProfile(
        AccuracyProfile(accuracy),
        CostRegression(RegressionForm.LOAD, seconds),
        CostRegression(RegressionForm.LOAD, joules),
        TokenRatio(ratio),
    )


MODELS = {
    "cheap": model(0.5, [0.1, 1e-3, 0.02, 0, 1e-3], [5, 0.1, 1, 0, 1], 1.2),
    "good": model(0.8, [0.1, 2e-3, 0.06, 0, 1e-3], [9, 0.3, 4, 1e-4, 2]),
    "quick": model(0.6, [0.3, 1e-4, 0.01, 0, 1e-3], [50, 0.2, 2, 0, 9], 0.9),
    "poor": model(0.4, [1, 2e-3, 0.1, 0, 1e-3], [90, 0.4, 6, 0, 9]),
    "twin": model(0.8, [0.1, 2e-3, 0.06, 0, 1e-3], [9, 0.3, 4, 1e-4, 2]),
}
OPTIONS = [choices.build_option(name, one) for name, one in MODELS.items()]


def decided(length, weights, policy, running=0):
    """Ask the scheduler the long way."""
    tokens_in, tokens_out = length
    options = [
        choices.Option(
            one.model, one.deployment, one.accuracy, one.seconds, one.joules, one.context,
            output=OutputModel(0.0, tokens_out), ratio=one.ratio,
        )
        for one in OPTIONS
    ]  # fmt: skip
    candidates = [Candidate(one, running) for one in options]
    best = make_decision(
        RequestFeatures(tokens_in), candidates, MetricWeights.from_values(*weights), policy=policy
    ).best_candidate
    return best.model


def random_weights(size, seed=0):
    return np.random.default_rng(seed).dirichlet([1, 1, 1], size)


@pytest.mark.parametrize("policy", choices.POLICY_NAMES)
@pytest.mark.parametrize("length", [(1, 1), (32, 45), (700, 300), (4000, 1000)])
def test_winners_are_those_of_the_scheduler(policy, length):
    priced = choices.price_models(OPTIONS, *length, policy=policy, running=3)
    weights = np.vstack([random_weights(100), np.eye(3), [[1 / 3] * 3]])
    found = [priced.names[place] for place in choices.find_winners(priced, weights)]
    assert found == [decided(length, row, policy, 3) for row in weights]
    assert set(priced.tokens_out) == {length[1]}


@pytest.mark.parametrize("policy", choices.POLICY_NAMES)
def test_regions_tile_the_triangle_and_agree_with_the_scheduler(policy):
    length = (300, 100)
    regions = choices.find_win_regions(choices.price_models(OPTIONS, *length, policy=policy))
    assert sum(region.share for region in regions) == pytest.approx(1.0)
    assert "twin" not in {region.name for region in regions}
    for region in regions:
        middle = region.corners.mean(axis=0)
        assert decided(length, middle, policy) == region.name
        # Well inside, towards each corner too.
        for corner in region.corners:
            assert decided(length, middle + 0.98 * (corner - middle), policy) == region.name


def test_one_model_has_the_whole_triangle():
    regions = choices.find_win_regions(choices.price_models(OPTIONS[:1], 10, 10))
    assert [(region.name, region.share) for region in regions] == [("cheap", pytest.approx(1.0))]


def test_twins_are_found_and_the_first_takes_every_tie():
    priced = [choices.price_models(OPTIONS, tokens, 50) for tokens in (10, 1000)]
    assert choices.find_tied_models(priced) == [("good", "twin")]
    assert choices.find_tied_models([]) == []
    at = choices.find_winners(priced[0], np.array([[1.0, 0.0, 0.0]]))
    assert priced[0].names[at[0]] == "good" == decided((10, 50), (1, 0, 0), "fair-ols")


def test_pareto_front_of_a_hand_made_case():
    costs = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 1.0])
    accuracies = np.array([0.9, 0.5, 0.7, 0.6, 0.9, 0.5])
    # 0 best; 1 and 5 cheapest and equal; 2 between; 3 as dear as 2, worse; 4 as good as 0, dearer.
    assert choices.find_pareto_front(costs, accuracies) == [1, 5, 2, 0]
    assert choices.find_pareto_front(np.array([1.0]), np.array([0.1])) == [0]


def gathered(**given):
    return material.load_plot_data(material.PlotSources(**given))


@pytest.mark.parametrize("policy", choices.POLICY_NAMES)
def test_the_map_of_lengths_agrees_with_the_scheduler(policy):
    found = gathered()
    names = list(found.profile.models)
    x, y = (lengths_map.build_token_axis(most)[::12] for most in (8192, 4096))
    priced = [[found.price_request((int(i), int(o)), policy) for i in x] for o in y]
    for weights in ((0.5, 0.3, 0.2), (0.8, 0.1, 0.1), (0.0, 0.0, 1.0)):
        won = lengths_map.map_winners(priced, names, np.array([weights]))
        for row, o in enumerate(y):
            for column, i in enumerate(x):
                candidates = [
                    Candidate(
                        choices.Option(
                            name, name, one.accuracy.default, one.seconds.to_cost_function("seconds"),
                            one.joules.to_cost_function("joules"), 10**9, output=OutputModel(0.0, int(o)),
                            ratio=one.tokens.ratio,
                        )
                    )
                    for name, one in found.profile.models.items()
                ]  # fmt: skip
                decision = make_decision(
                    RequestFeatures(int(i)), candidates, MetricWeights(*weights), policy=policy
                )
                assert names[won[row, column]] == decision.best_candidate.model


def test_the_shares_of_a_sweep_add_up_and_keep_what_the_design_expects():
    found = gathered()
    priced = {length: found.price_request((length, None)) for length in found.prompts}
    for metric in range(3):
        shares = sensitivity.compute_shares(found, priced, metric)
        total = sum(shares.values())
        assert np.allclose(total, 1.0)
        assert shares["falcon-7b"].max() == 0.0
    assert sensitivity.compute_shares(found, priced, 0)["mistral-7b"][-1] == pytest.approx(1.0)
    assert sensitivity.compute_shares(found, priced, 1)["phi-3-mini"][-1] == pytest.approx(1.0)


def test_a_sweep_splits_the_rest_evenly():
    swept = choices.sweep_weight(1, 5)
    assert swept[:, 1].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert np.allclose(swept.sum(axis=1), 1.0)
    assert np.array_equal(swept[:, 0], swept[:, 2])


def test_bins_keep_the_lengths_of_a_grid_apart():
    x = np.repeat([16.0, 64.0, 256.0, 1024.0], 20)
    middle, half, low, high = predicted.compute_bins(x, x + np.tile(np.arange(20.0), 4))
    assert middle.tolist() == [16, 64, 256, 1024]
    assert (half - middle).tolist() == [9.5] * 4
    assert (low < half).all()
    assert (half < high).all()


def test_bins_keep_a_limit_that_most_reach_apart_from_what_lies_below():
    x = np.concatenate([np.linspace(10, 49, 100), np.full(5000, 50.0)])
    middle, half, _, _ = predicted.compute_bins(x, x)
    assert middle[-1] == 50.0
    assert middle[0] < 49.0
    assert np.array_equal(middle, half)


def test_a_sample_is_small_sorted_and_always_the_same():
    assert len(predicted.sample_rows(150_000)) == predicted.MAX_DOTS
    assert np.array_equal(predicted.sample_rows(150_000), predicted.sample_rows(150_000))
    assert predicted.sample_rows(3).tolist() == [0, 1, 2]
    assert predicted.format_shown_rows(150_000) == "2,000 of 150,000 rows shown"


def test_looks_differ_in_more_than_colour():
    looks = [style.get_model_style(number) for number in range(50)]
    assert len({(one.colour, one.marker) for one in looks}) == 50
    assert len({(one.colour, one.hatch) for one in looks}) == 50
    first = looks[:7]
    for kind in ("colour", "marker", "hatch"):
        assert len({getattr(one, kind) for one in first}) == 7


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234.5, "1,234"), (0.01234, "0.0123"), (float("nan"), "-"), (12.34, "12.3")],
)
def test_numbers_are_written_for_readers(value, text):
    assert style.format_number(value) == text
