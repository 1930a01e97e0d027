"""A simulated month of judged requests: three models whose accuracy differs by task and drifts.

Rules: the truth knows nothing of hashed words or linear heads. A prompt's chance of a right answer
depends on its task, on whether it is long, on two marks that matter only together, and on a
difficulty that no word tells; half way through one model gets worse at a task and another better
at two. Time is virtual; all lots come from the seed.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from calibration.accuracy.train import train_accuracy
from calibration.replay.off_policy import JudgedDraws
from gateway.scheduling.accuracy_bandit import (
    AccuracyBandit,
    JudgedFeatures,
    read_judged_features,
)
from gateway.scheduling.decision import MetricWeights, RoutingDecision, ScoredCandidate
from gateway.scheduling.exploration import AccuracyExplorer, ExplorationRules
from gateway.scheduling.prompt_accuracy import PromptAccuracy
from gateway.scheduling.text_features import TextFeatures, extract_text_features

DAYS = 30
DAY_SECONDS = 86_400.0
MODELS = ("small", "medium", "large")
JOULES = {"small": 100.0, "medium": 180.0, "large": 320.0}
SECONDS = {"small": 2.0, "medium": 3.0, "large": 5.0}
WEIGHTS = MetricWeights.from_values(0.7, 0.2, 0.1)
TASKS = ("chat", "code", "mathematics", "extraction", "law", "translation")
_SHARES = (0.3, 0.2, 0.15, 0.15, 0.1, 0.1)
_BEFORE = {
    "small": (2.2, -0.9, -1.6, 1.6, -0.8, 0.9),
    "medium": (2.3, 1.5, -0.4, 1.7, 0.4, 1.2),
    "large": (2.4, 1.7, 1.4, 1.9, 1.5, 1.3),
}
_AFTER = {
    "small": (2.2, -0.9, 1.6, 1.6, -0.8, 0.9),
    "medium": (2.3, 1.5, -0.4, 1.7, 1.6, -0.6),
    "large": (2.4, -1.0, 1.4, 1.9, -0.8, 1.3),
}
_COMMON = [f"common{at}" for at in range(60)]
_OWN = {task: [f"{task}{at}" for at in range(40)] for task in TASKS}
_LONG_WORDS = 45
_HIDDEN = (-1.2, -0.5, 0.0, 0.5, 1.2)


@dataclass(frozen=True, slots=True)
class JudgedPrompt:
    """One request: what a router sees of it, and the truth, by model."""

    at_seconds: float
    task: str
    text: TextFeatures
    chances: dict[str, float]
    scores: dict[str, float]
    """Whether each model's answer would be judged right."""


def find_chance(model: str, task: str, words: int, *, marked: bool, late: bool) -> float:
    """Return the true chance of a right answer, over the difficulties that no word tells."""
    level = (_AFTER if late else _BEFORE)[model][TASKS.index(task)]
    if words > _LONG_WORDS:
        level -= {"small": 0.6, "medium": 0.2, "large": 0.0}[model]
    if marked:
        level -= {"small": 0.5, "medium": 0.3, "large": 0.1}[model]
    return sum(1.0 / (1.0 + math.exp(-level - hidden)) for hidden in _HIDDEN) / len(_HIDDEN)


def draw_texts(seed: int, count: int) -> Iterator[tuple[str, JudgedPrompt]]:
    """Return so many requests of before the drift, with their words."""
    return itertools.islice(_draw(seed, 2 * count, 1.0), count)


def draw_prompts(seed: int, per_day: int, days: float = DAYS) -> Iterator[JudgedPrompt]:
    """Return a month's requests in order."""
    return (prompt for _, prompt in _draw(seed, per_day, days))


def _draw(seed: int, per_day: int, days: float) -> Iterator[tuple[str, JudgedPrompt]]:
    rng = random.Random(seed)
    total = round(per_day * days)
    for number in range(total):
        at = days * DAY_SECONDS * (number + rng.random()) / total
        task = rng.choices(TASKS, _SHARES)[0]
        size = round(8 + rng.expovariate(1.0 / 22.0))
        own = max(2, round(size * rng.uniform(0.25, 0.6)))
        words = [rng.choice(_OWN[task]) for _ in range(own)]
        words += [rng.choice(_COMMON) for _ in range(size - own)]
        first, second = rng.random() < 0.3, rng.random() < 0.3
        words += ["never"] * first + ["twice"] * second
        rng.shuffle(words)
        late = number >= total / 2
        chances = {
            model: find_chance(model, task, size, marked=first != second, late=late)
            for model in MODELS
        }
        scores = {model: float(rng.random() < chances[model]) for model in MODELS}
        told = " ".join(words)
        yield told, JudgedPrompt(at, task, extract_text_features(told), chances, scores)


def make_table(seed: int = 99, size: int = 4000) -> dict[str, dict[str, float]]:
    """Return each model's share per task as it was before the month: the static table."""
    sums: dict[str, dict[str, list[float]]] = {m: {t: [] for t in TASKS} for m in MODELS}
    for prompt in draw_prompts(seed, size * 2, 1.0):
        if prompt.at_seconds < DAY_SECONDS / 2:
            for model in MODELS:
                sums[model][prompt.task].append(prompt.scores[model])
    return {m: {t: sum(v) / len(v) for t, v in of.items()} for m, of in sums.items()}


def score_models(accuracies: dict[str, float]) -> dict[str, float]:
    """Return the objective of the weights for each model: lower is better."""
    return {
        model: WEIGHTS.accuracy * (1.0 - accuracies[model])
        + WEIGHTS.energy * math.log10(JOULES[model] / JOULES["small"])
        + WEIGHTS.time * math.log10(SECONDS[model] / SECONDS["small"])
        for model in MODELS
    }


def rank_models(accuracies: dict[str, float]) -> RoutingDecision:
    """Return the decision that the policy `relative` makes of these accuracies."""
    scores = score_models(accuracies)
    ranked = tuple(
        ScoredCandidate(
            model, model, scores[model], accuracies[model], SECONDS[model], JOULES[model],
            (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0, 0, 10, 10, floored=False,
        )
        for model in sorted(MODELS, key=scores.__getitem__)
    )  # fmt: skip
    return RoutingDecision("relative", WEIGHTS, ranked, (), feasible=True, profile_version="")


@dataclass(slots=True)
class MonthResult:
    """What a router's month came to."""

    regret: float = 0.0
    by_day: list[float] = field(default_factory=lambda: [0.0] * DAYS)
    explored: int = 0
    lost: list[tuple[float, float, float]] = field(default_factory=list)
    """(Unix seconds, right answers truly expected to be lost, joules added) of who was tried."""
    charged: list[tuple[float, float, float]] = field(default_factory=list)
    rows: list[tuple[JudgedPrompt, RoutingDecision]] = field(default_factory=list)
    """Those that were judged, with their decisions: what the log has."""

    def add(self, prompt: JudgedPrompt, model: str) -> None:
        """Count a choice."""
        true = score_models(prompt.chances)
        excess = true[model] - min(true.values())
        self.regret += excess
        self.by_day[min(DAYS - 1, int(prompt.at_seconds // DAY_SECONDS))] += excess


Prior = Callable[[JudgedPrompt], tuple[dict[str, float], JudgedFeatures]]
"""What the profile says of a prompt, by model, and what the learner reads of it."""


def run_learner(
    prompts: list[JudgedPrompt],
    prior: Prior,
    rules: ExplorationRules | None,
    *,
    half_life_days: float = 60.0,
    judged_share: float = 0.5,
    epsilon: float = 0.0,
    seed: int = 0,
) -> MonthResult:
    """Run the gateway's learner over a month; without rules it explores by `epsilon`."""
    rng = random.Random(seed)
    bandit = AccuracyBandit(half_life_days * DAY_SECONDS)
    explorer = None if rules is None else AccuracyExplorer(rules)
    result = MonthResult()
    for prompt in prompts:
        static, features = prior(prompt)
        bandit.fade(prompt.at_seconds)
        judged = rng.random() < judged_share
        found = {m: bandit.predict(m, features, static[m]) for m in MODELS}
        decision = rank_models({m: one.value for m, one in found.items()})
        greedy = decision.candidates[0].model
        if explorer is not None:
            deviations = {m: one.deviation for m, one in found.items()}
            decision = explorer.explore(decision, deviations, prompt.at_seconds)
            chosen = decision.candidates[0].model
            told = decision.exploration
            if told is not None:
                result.charged.append((prompt.at_seconds, told.answers_lost, told.joules_added))
        else:
            chosen = rng.choice(MODELS) if rng.random() < epsilon else greedy
        if chosen != greedy:
            result.explored += 1
            lost = max(0.0, prompt.chances[greedy] - prompt.chances[chosen])
            result.lost.append((prompt.at_seconds, lost, max(0.0, JOULES[chosen] - JOULES[greedy])))
        result.add(prompt, chosen)
        if judged:
            result.rows.append((prompt, decision))
            bandit.observe(
                chosen, features, static[chosen], prompt.scores[chosen], prompt.at_seconds
            )
    return result


def run_table(prompts: list[JudgedPrompt], table: dict[str, dict[str, float]]) -> MonthResult:
    """Run a table per task, its tasks known, that nobody updates."""
    result = MonthResult()
    for prompt in prompts:
        shares = {model: table[model][prompt.task] for model in MODELS}
        result.add(prompt, rank_models(shares).candidates[0].model)
    return result


@dataclass(frozen=True, slots=True)
class TrainedProfile:
    """What `joulegate accuracy train` made of labels from before the month."""

    model: PromptAccuracy
    statics: dict[str, float]

    def read(self, prompt: JudgedPrompt) -> tuple[dict[str, float], JudgedFeatures]:
        """Return what it predicts of a prompt, and what the learner reads of it."""
        reading = self.model.read(prompt.text)
        predicted = {
            name: self.model.predict(name, reading, self.statics[name]).value for name in MODELS
        }
        return predicted, read_judged_features(prompt.text, reading.kinds)


def train_profile(seed: int = 98, labels: int = 3000) -> TrainedProfile:
    """Train on labels of the world as it was before the month."""
    prompts = [
        one for one in draw_prompts(seed, 2 * labels, 1.0) if one.at_seconds < DAY_SECONDS / 2
    ]
    scores = np.array([[one.scores[name] for name in MODELS] for one in prompts])
    tasks = [one.task for one in prompts]
    trained = train_accuracy([one.text for one in prompts], scores, list(MODELS), tasks).model
    return TrainedProfile(trained.make(), {name: trained.heads[name].static for name in MODELS})


def collect_draws(result: MonthResult) -> JudgedDraws:
    """Return the judged rows of a month's log as replay reads them."""
    drawn, propensities, accuracies, scores = [], [], [], []
    for prompt, decision in result.rows:
        chosen = decision.candidates[0].model
        drawn.append(MODELS.index(chosen))
        chances = decision.exploration.propensities if decision.exploration else {}
        propensities.append([chances.get((name, name), 0.0) for name in MODELS])
        logged = {one.model: one.accuracy for one in decision.candidates}
        accuracies.append([logged[name] for name in MODELS])
        scores.append(prompt.scores[chosen])
    return JudgedDraws(
        np.array(drawn), np.array(propensities), np.array(accuracies), np.array(scores)
    )
