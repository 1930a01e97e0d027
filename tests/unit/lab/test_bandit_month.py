"""A month of judged requests: regret, the budgets of exploring, and policies judged by its log."""

import random
from collections import Counter

import numpy as np
import pytest

from calibration.replay.off_policy import estimate_policy
from gateway.scheduling.exploration import ExplorationMethod, ExplorationRules
from tests.lab.bandit_month import (
    DAY_SECONDS,
    MODELS,
    collect_draws,
    draw_prompts,
    make_table,
    rank_models,
    run_learner,
    run_table,
    train_profile,
)

pytestmark = pytest.mark.slow

PER_DAY = 2000
METHODS = list(ExplorationMethod)
POOL = 3000
RUNS, RUN_REQUESTS = 100, 600


@pytest.fixture(scope="module")
def profile():
    return train_profile()


@pytest.fixture(scope="module")
def month(profile):
    prompts = list(draw_prompts(1, PER_DAY))
    return prompts, {id(one): profile.read(one) for one in prompts}


@pytest.fixture(scope="module")
def rivals(month):
    """The regret of the same learner with epsilon-greedy, and of a table that nobody updates."""
    prompts, read = month
    greedy = run_learner(prompts, lambda one: read[id(one)], None, epsilon=0.1)
    return greedy.regret, run_table(prompts, make_table()).regret


@pytest.mark.parametrize("method", METHODS)
def test_its_regret_is_under_half_of_either_rivals_within_its_budget(month, rivals, method):
    prompts, read = month
    rules = ExplorationRules(method, 2.0, 1000.0)
    found = run_learner(prompts, lambda one: read[id(one)], rules)
    assert found.explored > 100
    for rival in rivals:
        assert found.regret < 0.5 * rival
    # What was charged in any hour, by the minute, is within the budgets.
    for kind, most in ((1, 2.0), (2, 1000.0)):
        last, total = 0, 0.0
        for now in found.charged:
            total += now[kind]
            while found.charged[last][0] <= now[0] - 3600.0:
                total -= found.charged[last][kind]
                last += 1
            assert total <= most + 1e-6
    # And what it truly cost, which no gateway sees, is what was charged.
    charged, lost = (sum(one[1] for one in rows) for rows in (found.charged, found.lost))
    assert lost == pytest.approx(charged, rel=0.35)


@pytest.mark.parametrize("method", METHODS)
def test_estimates_from_its_log_contain_the_truth(profile, method):
    """Of 100 runs at least 90, for each policy and each estimate."""
    table = make_table()
    halves = [
        [
            one
            for one in draw_prompts(7, 2 * POOL, 1.0)
            if (one.at_seconds < DAY_SECONDS / 2) is early
        ]
        for early in (True, False)
    ]
    read = {id(one): profile.read(one) for half in halves for one in half}

    def follow_table(one):
        shares = {name: table[name][one.task] for name in MODELS}
        return MODELS.index(rank_models(shares).candidates[0].model)

    policies = {f"always {name}": lambda _, at=at: at for at, name in enumerate(MODELS)}
    policies["table"] = follow_table
    truths = {
        name: np.mean([one.chances[MODELS[choose(one)]] for half in halves for one in half])
        for name, choose in policies.items()
    }
    contained = Counter()
    for run in range(RUNS):
        rng = random.Random(run)
        prompts = [rng.choice(halves[2 * at >= RUN_REQUESTS]) for at in range(RUN_REQUESTS)]
        log = run_learner(
            prompts,
            lambda one: read[id(one)],
            ExplorationRules(method, 1e6, 1e9, seed=run),
            seed=run,
        )
        draws = collect_draws(log)
        for name, choose in policies.items():
            value = estimate_policy(draws, np.array([choose(one) for one, _ in log.rows]))
            for kind in ("ips", "doubly_robust"):
                low, high = getattr(value, kind).interval
                contained[name, kind] += low <= truths[name] <= high
    assert (
        min(contained[name, kind] for name in policies for kind in ("ips", "doubly_robust")) >= 90
    )
