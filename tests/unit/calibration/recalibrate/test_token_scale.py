"""The model's tokens per token counted and per digit or mark: refitted together, from sums."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.recalibrate.limits import GateLimits
from calibration.recalibrate.sums import read_blocks
from calibration.recalibrate.token_scale import check_token_scale, refit_token_scale
from gateway.profile import TokenRatio
from gateway.scheduling.regression_terms import PROMPT
from tests.unit.calibration.recalibrate.sums_of_rows import ONE, clusters, series

EVERY = 10
LIMITS = GateLimits()
RUNS = 20
PLAIN = TokenRatio(1.0)


def draw_prompts(seed, *, ratio=1.15, per_dense_char=0.4, size=3000, noise=0.05, dense=None):
    """Prose, code and tables: digits and marks from none to as many as there are tokens."""
    rng = np.random.default_rng(seed)
    e = np.maximum(4.0, np.rint(rng.lognormal(5.0, 0.8, size)))
    share = rng.beta(0.6, 2.0, size) if dense is None else dense
    d = np.rint(share * e)
    i = np.maximum(1.0, np.rint((ratio * e + per_dense_char * d) * rng.normal(1.0, noise, size)))
    empty = np.zeros(size)
    return {"e": e, "d": d, "i": i, "o": empty, "y": empty, "z": empty}


def refit(rows, live, **limits):
    block = read_blocks(PROMPT, series(rows, PROMPT, quantity="tokens", every=EVERY))[ONE]
    assert block.faults == ()
    given = GateLimits(**limits)
    found = refit_token_scale(block, live, given, 600.0)
    return found, list(check_token_scale(found, live, given))


def test_both_are_least_squares_of_the_rows():
    rows = draw_prompts(1)
    found, refused = refit(rows, TokenRatio(1.0))
    assert refused == []
    x = np.column_stack([rows["e"], rows["d"]])
    assert [found.ratio, found.per_dense_char] == pytest.approx(
        np.linalg.lstsq(x, rows["i"], rcond=None)[0].tolist()
    )
    # Errors by the sandwich over blocks of ten scrapes, written out.
    left = rows["i"] - x @ [found.ratio, found.per_dense_char]
    at = np.minimum((clusters(len(left), EVERY) * 60.0 + 1060.0) // 600.0, 1e9)
    groups = np.unique(at)
    scores = np.array([(x[at == g] * left[at == g, None]).sum(axis=0) for g in groups])
    bread = np.linalg.inv(x.T @ x)
    wanted = bread @ scores.T @ scores @ bread * len(groups) / (len(groups) - 1)
    assert found.blocks == len(groups)
    assert found.covariance[1:, 1:] == pytest.approx(wanted)


def test_intervals_hold_the_truth():
    held = np.zeros(2)
    for seed in range(200):
        found, _ = refit(draw_prompts(seed, size=600), TokenRatio(1.0))
        held += [
            abs(found.ratio - 1.15) <= found.ratio_half,
            abs(found.per_dense_char - 0.4) <= found.dense_half,
        ]
    assert (held >= 0.88 * 200).all()


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_what_prompts_do_not_tell_apart_stays_as_it_was(share):
    rows = draw_prompts(2, noise=0.0, dense=share, size=1000)
    rows["e"] = 4.0 * np.rint(rows["e"] / 4.0)
    rows["d"] = share * rows["e"]
    rows["i"] = np.rint(2.0 * rows["e"] + 0.4 * rows["d"])
    found, refused = refit(rows, TokenRatio(1.0, per_dense_char=0.3))
    assert refused == []
    assert found.dense_kept
    assert found.per_dense_char == 0.3
    assert found.ratio == pytest.approx(2.0 + 0.1 * share, rel=1e-3)


def test_a_true_profile_stays_and_one_that_is_off_is_mended():
    replaced, fresh = 0, draw_prompts(999, noise=0.0)
    for seed in range(RUNS):
        rows = draw_prompts(seed, noise=0.2)
        _, refused = refit(rows, TokenRatio(1.15, per_dense_char=0.4))
        replaced += not refused
        found, refused = refit(rows, TokenRatio(1.15))  # digits and marks not known of
        assert refused == []
        told = found.ratio * fresh["e"] + found.per_dense_char * fresh["d"]
        assert np.median(np.abs(told / fresh["i"] - 1.0)) <= 0.03
    assert replaced <= 1


def gates_of(rows, live=PLAIN, **limits):
    return {one.gate for one in refit(rows, live, **limits)[1]}


def test_what_is_refused():
    assert gates_of(draw_prompts(1, ratio=4.0)) == {"change"}
    assert gates_of(draw_prompts(1, size=600)) >= {"blocks"}
    assert gates_of(draw_prompts(1), TokenRatio(1.15, 0.4)) == {"gain"}
    assert gates_of(draw_prompts(1), max_interval=1e-4) == {"interval"}
    one = draw_prompts(1)
    one["i"][1500:1510] *= 60.0
    assert gates_of(one, max_influence=0.05) >= {"influence"}
    found, _ = refit(draw_prompts(1), TokenRatio(1.0))
    backwards = replace(found, per_dense_char=-5.0)
    assert [one.gate for one in check_token_scale(backwards, TokenRatio(1.0), LIMITS)] == ["signs"]


def test_where_only_a_few_prompts_have_digits_the_ratio_is_refitted_alone():
    rows = draw_prompts(1)
    rows["i"] = np.rint(rows["i"] - 0.4 * rows["d"] * (np.arange(3000) >= 10))
    rows["d"][10:] = 0.0
    found, refused = refit(rows, TokenRatio(1.0))
    assert refused == []
    assert found.dense_kept
    assert found.ratio == pytest.approx(1.15, abs=0.01)
