"""`--weights`, `--preset`, `--policy` and `--profile` into scenarios: each with each."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Final

from calibration.replay.replay import DEFAULT_WEIGHTS, ReplayScenario
from calibration.tables.columns import BadInput, check_choice
from gateway import profile
from gateway.profile import SHIPPED, CostProfile
from gateway.scheduling import decision
from gateway.scheduling.decide import POLICIES
from gateway.scheduling.decision import METRICS, MetricWeights

OWN: Final = "own"
"""Each request's own weights or policy, as a name on the command line."""
PRESETS: Final = {"default": DEFAULT_WEIGHTS, **decision.PRESETS}
"""The gateway's built-in presets; those of a config are given as --weights."""


def build_scenarios(
    weights: Sequence[str], presets: Sequence[str], policies: Sequence[str], files: Sequence[str]
) -> list[ReplayScenario]:
    """Return every combination, named by what differs. Raises BadInput, ProfileError."""
    mixes: dict[str, MetricWeights | None] = {}
    for text in weights:
        name, mix = _parse_weights(text)
        mixes[name] = mix
    for text in presets:
        name = text.removeprefix("auto:")
        if name not in PRESETS:
            raise BadInput(f"--preset {text}: is none of {', '.join(PRESETS)}; use --weights")
        mixes[name] = PRESETS[name]
    for text in policies:
        check_choice(text, "--policy", (*POLICIES, OWN))
    profiles = _load_profiles(files)
    found = []
    for (mix_name, mix), policy, (label, loaded) in product(
        (mixes or {"own weights": None}).items(),
        dict.fromkeys(policies or [OWN]),
        profiles.items(),
    ):
        parts = [mix_name]
        parts += [policy] if policy != OWN or len(policies) > 1 else []
        parts += [label] if len(profiles) > 1 else []
        name = ", ".join(parts)
        found.append(ReplayScenario(name, loaded, mix, None if policy == OWN else policy))
    return found


def _parse_weights(text: str) -> tuple[str, MetricWeights | None]:
    """Read `accuracy=0.7,energy=0.2[,time=0.1]`, with `NAME:` before it if wanted, or `own`."""
    if text.strip() == OWN:
        return "own weights", None
    name, _, rest = text.rpartition(":")
    given: dict[str, float] = {}
    for part in rest.split(","):
        metric, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if metric not in METRICS or metric in given or value < 0.0:
            raise BadInput(
                f"--weights {text}: want accuracy=N,energy=N,time=N (N of 0 or more; a name and a "
                "colon may stand before)"
            )
        given[metric] = value
    try:
        mix = MetricWeights.from_values(**given)
    except ValueError as error:
        raise BadInput(f"--weights {text}: {error}") from None
    return name.strip() or rest.strip(), mix


def _load_profiles(files: Sequence[str]) -> dict[str, CostProfile]:
    """Read `FILE`, `NAME=FILE` or `shipped`; the shipped one where there is none."""
    found: dict[str, CostProfile] = {}
    for text in files or [SHIPPED]:
        name, equals, place = text.partition("=")
        if not equals or Path(text).exists():
            name, place = text, text
        if name in found:
            raise BadInput(f"--profile {text}: {name!r} is named twice")
        found[name] = profile.load_profile(None if place == SHIPPED else Path(place))
    return found
