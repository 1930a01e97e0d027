"""When requests come, and what they ask for."""

from dataclasses import dataclass, replace
from math import log
from random import Random

from gateway.scheduling.decision import MetricWeights


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a schedule; times in seconds of the run."""

    at_seconds: float
    tokens_in: int
    tokens_out: int
    stream: bool = True
    cached_tokens: int = 0
    """Of the prompt, found in the prefix cache."""
    counted_tokens_in: int | None = None
    """What the gateway counts before it knows; None: the true number."""
    reported: bool = True
    """Whether it passes a gateway; else only the backend's own counters tell of it."""
    leaves_after_seconds: float | None = None
    """When its client gives up, if the answer is not whole by then."""
    reads_after_seconds: float = 0.0
    """A stalled client: what its gateway passes on comes so much later (the end, too)."""
    backend: str | None = None
    """Where it must go; None: where the placement says."""
    limit: int | None = None
    """What the client asks for at most; the answer is no longer."""
    weights: MetricWeights | None = None
    """The client's own; None: the gateway's."""
    tag: str = ""


def poisson(
    *,
    rate: float,
    seconds: float,
    seed: int,
    tokens_in: tuple[int, int] = (20, 1000),
    mean_tokens_out: float = 300.0,
    sigma: float = 0.8,
    most_tokens_out: int = 2048,
    unary_share: float = 0.0,
    **fields,
) -> list[Arrival]:
    """Independent arrivals; prompts uniform, answers log-normal with that mean."""
    rng = Random(seed)
    found, now = [], 0.0
    mu = log(mean_tokens_out) - sigma**2 / 2
    while (now := now + rng.expovariate(rate)) < seconds:
        answer = round(rng.lognormvariate(mu, sigma))
        found.append(
            Arrival(
                now,
                rng.randint(*tokens_in),
                min(max(answer, 1), most_tokens_out),
                stream=rng.random() >= unary_share,
                **fields,
            )
        )
    return found


def bursts(
    *, count: int, every_seconds: float, seconds: float, seed: int, within_seconds: float = 0.2,
    unary_share: float = 0.5, **options,
) -> list[Arrival]:  # fmt: skip
    """So many at once, again and again."""
    rng = Random(seed)
    drawn = poisson(rate=1.0, seconds=4 * count * seconds / every_seconds + 100, seed=seed,
                    unary_share=unary_share, **options)  # fmt: skip
    found, turn = [], 0
    while turn * every_seconds < seconds:
        for _ in range(count):
            at_seconds = turn * every_seconds + rng.uniform(0.0, within_seconds)
            found.append(replace(drawn[len(found)], at_seconds=at_seconds))
        turn += 1
    return sorted(found, key=lambda one: one.at_seconds)
