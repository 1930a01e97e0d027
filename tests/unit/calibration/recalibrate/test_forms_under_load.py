"""What knowing the load is worth: the same traffic predicted with and without it.

The simulator's engine serves so many requests at once; its joules go through the gateway's sums and
the refit of recalibration, and are predicted for fresh requests.
"""

import random
import statistics

import msgspec
import pytest

from backends.simulator.cost_model import CostModel
from backends.simulator.engine import BatchingEngine
from calibration.recalibrate.form_choice import RefitRules
from calibration.recalibrate.limits import PriorSettings
from calibration.recalibrate.prometheus import Series
from calibration.recalibrate.refit import refit_cost
from calibration.recalibrate.sums import SUMS_METRIC, read_blocks
from gateway.profile import CostRegression
from gateway.scheduling.cost import CostQuantity, RegressionForm
from gateway.scheduling.regression_terms import COSTS, WeighedPrediction
from gateway.telemetry.ols_sums import OlsSums, SumsCollector
from gateway.telemetry.sums_row import SumsRow

LEVELS = (1, 8, 32, 64)
NAME = ("phi-3-mini", "phi-3-mini")
LIVE = CostRegression(form=RegressionForm.INTERACTION, coefficients=[1.0, 0.1, 1.0, 0.0])
NOISE = 0.05
SCRAPE = 25
ROUNDS = 4


def served(truth, level, count, seed):
    """(i, o, r, microjoules) of requests of which so many were always in flight."""
    rng, engine = random.Random(seed), BatchingEngine(truth, seed)
    running, found = [], []
    while len(found) < count:
        while engine.running_requests + engine.waiting_requests < level:
            running.append(engine.running_requests + engine.waiting_requests)
            engine.submit_request(str(len(running) - 1), rng.randint(20, 400), rng.randint(20, 200))
        found += [
            (one.tokens_in, one.tokens_out, running[int(one.request_id)], one.microjoules)
            for one in engine.run_step().finished
        ]
    return found


def refitted(rows, form):
    """The joules' regression out of the gateway's sums of these rows, round after round.

    A profile that does not know load is up to twelve times too high under load, and rows are
    winsorised around the live prediction: the first round brings it near, the next ones home.
    """
    live = LIVE
    for _ in range(ROUNDS):
        live = refit_once(rows, form, live)
    return live.to_cost_function(CostQuantity.JOULES)


def refit_once(rows, form, live):
    """One round, scraped now and then."""
    sums = OlsSums([NAME])
    samples = {}
    for count, (i, o, r, microjoules) in enumerate([*rows, (0, 0, 0, 0)]):
        if count % SCRAPE == 0 or count == len(rows):
            (family,) = SumsCollector(sums.snapshot_sums).collect()
            for one in family.samples:
                if (one.labels["basis"], one.labels["quantity"]) == (COSTS, "joules"):
                    samples.setdefault(one.labels["term"], []).append((count, repr(one.value)))
        said = WeighedPrediction.of(live.to_cost_function(CostQuantity.JOULES), i, o, r, 0)
        sums.add_row(*NAME, SumsRow(i, o, 0, r, 0, microjoules, None, True, said, said, r))
    names = dict(zip(("model", "deployment"), NAME, strict=True)) | {"__name__": SUMS_METRIC}
    series = [Series(names | {"term": term}, values) for term, values in samples.items()]
    block = read_blocks(COSTS, series)[NAME]
    assert (block.n, block.faults) == (len(rows), ())
    rules = RefitRules(
        form=form, prior_settings=PriorSettings(0.0), max_change=1e9, block_seconds=SCRAPE
    )
    found = refit_cost(CostQuantity.JOULES, block, live, rules)
    assert found.wrong_sign is None
    return CostRegression(form=found.form, coefficients=found.coefficients)


def errors(cost, rows):
    return [abs(cost.predict_cost(i, o, r) / (uj / 1e6) - 1.0) for i, o, r, uj in rows]


@pytest.mark.parametrize("name", ["phi-3-mini", "mistral-7b", "falcon-7b"])
def test_the_load_form_has_a_third_of_the_error_at_most(shipped, name):
    truth = CostModel.from_profile(msgspec.to_builtins(shipped.get_model(name)), noise=NOISE)
    seen = {level: served(truth, level, 600, level) for level in LEVELS}
    fresh = {level: served(truth, level, 300, 1000 + level) for level in LEVELS}
    alone = refitted(seen[1], RegressionForm.INTERACTION)
    load = refitted([row for level in LEVELS for row in seen[level]], None)
    assert load.form is RegressionForm.LOAD
    medians = {
        level: [statistics.median(errors(cost, fresh[level])) for cost in (alone, load)]
        for level in LEVELS
    }
    for level in LEVELS[1:]:
        without, knowing = medians[level]
        assert knowing <= without / 3
        # What is left is the noise of the requests themselves, and that the form is not the truth:
        # company shares the fixed part of a step in which prompts begin.
        assert knowing < 1.2 * NOISE
    # Alone there is nothing to know, and nothing is lost.
    assert medians[1][1] < NOISE
    every = [[e for level in LEVELS for e in errors(c, fresh[level])] for c in (alone, load)]
    assert statistics.median(every[1]) <= statistics.median(every[0]) / 3
