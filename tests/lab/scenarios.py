"""The kinds of traffic that docs/energy.md and the tests judge metering by.

One table, one command (`python -m tests.bench energy`): each scenario is a lab, a schedule and what
was asked of it. Truth is the physical step model; charges are the ledger's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.lab.costs import H100, LONG_CONTEXT, ProfiledCost, fitted_profile
from tests.lab.lab import Lab, LabBackend
from tests.lab.metering import Meter
from tests.lab.results import LabRun
from tests.lab.schedule import Arrival, bursts, poisson

LENGTHS = {"tokens_in": (20, 600), "mean_tokens_out": 200.0}
SLOTS = replace(H100, max_num_seqs=8)
SMALL = H100.scale_costs(joules=0.2, seconds=0.4)
"""A fifth of the joules of the other: the two models of one GPU."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run and its limits, all relative."""

    name: str
    run: Callable[[int], LabRun]
    median: float
    p95: float | None = None
    sum_each: float | None = None
    """Of each backend's joules."""
    other: float | None = None
    """What `other` may have of the energy that was not idle, where all passes the gateway."""


def steady(rate: float, seed: int, meter: Meter = Meter()) -> LabRun:  # noqa: B008 - frozen
    """Streams, one model on one GPU."""
    arrivals = poisson(rate=rate, seconds=240.0, seed=seed, **LENGTHS)
    cost = fitted_profile(H100)
    return Lab([LabBackend("one", H100, cost=cost)], seed=seed, meter=meter).run(arrivals)


def burst(seed: int, *, timings: bool = True) -> LabRun:
    """Thirty at once, half of them unary, where eight can run."""
    arrivals = bursts(count=30, every_seconds=45.0, seconds=450.0, seed=seed, **LENGTHS)
    backend = LabBackend("one", SLOTS, cost=fitted_profile(SLOTS))
    return Lab([backend], seed=seed, meter=Meter(timings=timings)).run(arrivals)


def two_models(rate: float, seed: int, meter: Meter = Meter()) -> LabRun:  # noqa: B008 - frozen
    """A large and a small model on one GPU, each profiled alone."""
    rng = Random(seed)
    arrivals = [
        replace(one, backend=rng.choice(("large", "small")))
        for one in poisson(rate=rate, seconds=max(300.0, 300.0 / rate), seed=seed, **LENGTHS)
    ]
    backends = [
        LabBackend("large", H100, cost=fitted_profile(H100)),
        LabBackend("small", SMALL, cost=fitted_profile(SMALL)),
    ]
    return Lab(backends, seed=seed, meter=meter).run(arrivals)


def long_prompts(seed: int) -> LabRun:
    """One prompt in eight has 8,000 to 30,000 tokens."""
    rng = Random(seed)
    arrivals = [
        replace(one, tokens_in=rng.randint(8_000, 30_000)) if rng.random() < 1 / 8 else one
        for one in poisson(rate=1.5, seconds=300.0, seed=seed, **LENGTHS)
    ]
    cost = fitted_profile(LONG_CONTEXT)
    return Lab([LabBackend("one", LONG_CONTEXT, cost=cost)], seed=seed).run(arrivals)


def unary(seed: int, *, timings: bool) -> LabRun:
    """All unary, some waiting in line."""
    arrivals = poisson(rate=1.6, seconds=300.0, seed=seed, unary_share=1.0, **LENGTHS)
    arrivals += bursts(
        count=20, every_seconds=60.0, seconds=300.0, seed=seed + 1, unary_share=1.0, **LENGTHS
    )
    arrivals.sort(key=lambda one: one.at_seconds)
    backend = LabBackend("one", SLOTS, cost=fitted_profile(SLOTS))
    return Lab([backend], seed=seed, meter=Meter(timings=timings)).run(arrivals)


SCENARIOS = (
    Scenario("2 requests/s, streamed", lambda s: steady(2.0, s), 0.01, 0.05),
    Scenario("8 requests/s, streamed", lambda s: steady(8.0, s), 0.01, 0.05),
    Scenario("15 requests/s, streamed", lambda s: steady(15.0, s), 0.01, 0.05),
    Scenario("bursts of 30, 8 slots, half unary, timings on", burst, 0.02, 0.10),
    Scenario("two models 1:5, 4 requests/s", lambda s: two_models(4.0, s), 0.10, sum_each=0.05),
    Scenario("two models 1:5, 0.5 requests/s", lambda s: two_models(0.5, s), 0.10, sum_each=0.05),
    Scenario("prompts of 8k to 30k among short ones", long_prompts, 0.05),
    Scenario(
        "two GPUs, tensor parallel, 4 requests/s", lambda s: steady(4.0, s, Meter(devices=2)), 0.01
    ),
    Scenario("unary with a queue, timings on", lambda s: unary(s, timings=True), 0.02, other=0.01),
    Scenario("unary with a queue, no timings", lambda s: unary(s, timings=False), 0.10, other=0.03),
)


def odd(change: Callable[[Random, Arrival], Arrival], **truth: object) -> LabRun:
    """Streams at 4 requests/s, some of them changed, on an engine that may be unlike."""
    rng = Random(1)
    arrivals = [change(rng, one) for one in poisson(rate=4.0, seconds=200.0, seed=1, **LENGTHS)]
    return Lab([LabBackend("one", replace(H100, **truth))]).run(arrivals)


def same(_: Random, one: Arrival) -> Arrival:
    """As it was."""
    return one


def stalls(rng: Random, one: Arrival) -> Arrival:
    """One client in twenty stops reading for five seconds."""
    return replace(one, reads_after_seconds=5.0) if rng.random() < 0.05 else one


def leaves(rng: Random, one: Arrival) -> Arrival:
    """One in ten is unary and given up after two seconds."""
    if rng.random() < 0.1:
        return replace(one, stream=False, leaves_after_seconds=2.0)
    return one


def hides(rng: Random, one: Arrival) -> Arrival:
    """One in five passes the gateway by."""
    return replace(one, reported=rng.random() > 0.2)


def repeats(_: Random, one: Arrival) -> Arrival:
    """Seven tenths of each prompt are in the prefix cache."""
    return replace(one, cached_tokens=int(0.7 * one.tokens_in))


SPECULATIVE = {"draft_tokens": 3, "acceptance": 0.6}
CRAMPED = {"preempts": True, "kv_tokens": 9_000}


def odd_cases() -> dict[str, LabRun]:
    """What a ledger cannot see all of."""
    return {
        "speculative decoding, 3 drafted": odd(same, **SPECULATIVE),
        "a cache too small: preemptions": odd(same, **CRAMPED),
        "stalled clients (1 in 20)": odd(stalls),
        "abandoned unary (1 in 10)": odd(leaves),
        "past the gateway (1 in 5)": odd(hides),
        "70% of prompts cached, told": odd(repeats),
        "70% of prompts cached, not told": untold(),
        "a profile 30% too high throughout": known_as(fitted_profile(H100).scaled(1.3)),
        "a profile without cost of context": known_as(
            replace(fitted_profile(H100), context_joules=0.0)
        ),
        "no joules per token at all (eps only)": known_as(
            ProfiledCost(fitted_profile(H100).prompt_joules)
        ),
        "prompts counted 30% short": odd(lambda _, one: miscounted(one)),
    }


def untold() -> LabRun:
    """Cached prompts, and a server that does not say so."""
    rng = Random(1)
    arrivals = [repeats(rng, one) for one in poisson(rate=4.0, seconds=200.0, seed=1, **LENGTHS)]
    return Lab([LabBackend("one", H100)], meter=Meter(cached_told=False)).run(arrivals)


def known_as(cost: ProfiledCost) -> LabRun:
    """Streams at 8 requests/s, metered by what a profile says that is not the truth."""
    arrivals = poisson(rate=8.0, seconds=240.0, seed=1, **LENGTHS)
    return Lab([LabBackend("one", H100, cost=cost)], seed=1).run(arrivals)


def miscounted(one: Arrival) -> Arrival:
    """A gateway that counts seven tenths of a prompt until its end tells."""
    return replace(one, counted_tokens_in=max(1, int(0.7 * one.tokens_in)))
