"""Which key of the profile each deployment's traffic is to refit.

Rules, the strongest first:
- `--model NAME=KEY` says so; NAME is a deployment, or else a model.
- The gateways say so: each exports the key that a deployment is predicted by. An instance's last
  word in the window counts. Where two instances disagree, somebody has to decide.
- A guess, with a warning: the key that is named as the deployment or its model is. Where the
  profile has both, somebody has to decide.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import httpx

from calibration.recalibrate import sums
from calibration.recalibrate.prometheus import PrometheusError, QueryResult, Series
from calibration.recalibrate.window_sums import DeploymentKey
from calibration.tables.columns import BadInput
from gateway.profile import CostProfile

INFO_METRIC = "joulegate_deployment_info"
_NAMES = frozenset({"__name__", "model", "deployment", "profile"})

ReportedKeys = Mapping[DeploymentKey, Mapping[str, str]]
"""Of each deployment: key of the profile that it is predicted by -> an instance that says so."""


@dataclass(frozen=True, slots=True)
class ChosenKeys:
    """The deployments that feed each key of the profile, and what is doubtful about it."""

    deployments: Mapping[str, list[DeploymentKey]]
    warnings: tuple[str, ...]


def choose_keys(
    seen: Iterable[DeploymentKey],
    live: CostProfile,
    wanted: Iterable[str],
    ask: Callable[[], QueryResult],
) -> ChosenKeys:
    """Find the key of each deployment in the sums, or of those that `wanted` names.

    `ask` gives the raw samples of INFO; it is called only where something is left to ask. Raises
    BadInput where a key is not clear or not in the profile, PrometheusError.
    """
    seen = sorted(seen)
    if not seen:
        raise PrometheusError(
            f"no series {sums.SUMS_METRIC} in the window: does Prometheus scrape the "
            "gateways, and is --window long enough?"
        )
    said = dict(_parse_pair(text) for text in wanted)
    missing = set(said) - {name for pair in seen for name in pair}
    if missing:
        have = ", ".join(sorted({deployment for _, deployment in seen}))
        raise BadInput(f"--model {', '.join(sorted(missing))}: the sums have only {have}")
    explicit = {}
    for model, deployment in seen:
        name = deployment if deployment in said else model
        if name in said or not said:
            explicit[model, deployment] = said.get(name, "")
    told: ReportedKeys = {}
    warnings: list[str] = []
    if not all(explicit.values()):
        told, warnings = _query_keys(ask)
    keys: dict[str, list[DeploymentKey]] = defaultdict(list)
    guessed = []
    for one, key in explicit.items():
        found = key or _find_agreed_key(one, told.get(one, {}))
        if not found:
            found = _guess_key(one, live)
            guessed.append(f"{one[1]} (as {found})")
        if found not in live.models:
            have = ", ".join(sorted(live.models))
            raise BadInput(
                f"deployment {one[1]!r} is in the sums, but not in the profile (it has: {have}), "
                f"where it would be {found!r}; say which is its, --model {one[1]}=KEY, or name "
                "the others"
            )
        keys[found].append(one)
    if guessed:
        warnings.append(
            f"no {INFO_METRIC} in the window for {', '.join(guessed)}: guessed by name; "
            "--model DEPLOYMENT=KEY says it"
        )
    return ChosenKeys(keys, tuple(warnings))


def _query_keys(ask: Callable[[], QueryResult]) -> tuple[ReportedKeys, list[str]]:
    """Ask what the gateways say. A server that does not take the question has no answer."""
    try:
        found = ask()
    except PrometheusError as error:
        if error.code != httpx.codes.BAD_REQUEST:
            raise
        return {}, [str(error)]
    return _parse_keys(found.series), found.attributed_warnings


def _parse_keys(series: Iterable[Series]) -> ReportedKeys:
    """Keep each instance's last word; of two at one moment, both."""
    last: dict[tuple[DeploymentKey, str], tuple[float, set[str]]] = {}
    for one in series:
        at = max((at for at, value in one.values if float(value) > 0.0), default=None)
        key = one.metric.get("profile", "")
        if at is None or not key:
            continue
        model = one.metric.get("model", "")
        place = (model, one.metric.get("deployment", model)), one.describe_instance(_NAMES)
        before = last.get(place, (at, set()))
        if at >= before[0]:
            last[place] = (at, {key} if at > before[0] else {key, *before[1]})
    told: dict[DeploymentKey, dict[str, str]] = defaultdict(dict)
    for (deployment, instance), (_, keys) in sorted(last.items()):
        for key in sorted(keys):
            told[deployment].setdefault(key, instance)
    return told


def _find_agreed_key(deployment: DeploymentKey, told: Mapping[str, str]) -> str | None:
    """Return the one key that all instances name; None where none does."""
    if len(told) > 1:
        both = ", ".join(f"{key!r} ({instance})" for key, instance in told.items())
        raise BadInput(
            f"the gateways disagree on the profile key of deployment {deployment[1]!r}: {both}; "
            f"say which is its, --model {deployment[1]}=KEY"
        )
    return next(iter(told), None)


def _guess_key(deployment: DeploymentKey, live: CostProfile) -> str:
    model, name = deployment
    if model != name and {model, name} <= live.models.keys():
        raise BadInput(
            f"deployment {name!r} may be {name!r} or {model!r} in the profile, and no "
            f"{INFO_METRIC} in the window says which; say it, --model {name}=KEY"
        )
    return name if name in live.models else model


def _parse_pair(text: str) -> tuple[str, str]:
    name, _, key = text.partition("=")
    if not name.strip():
        raise BadInput(f"--model {text}: want NAME, or NAME=KEY")
    return name.strip(), key.strip()
