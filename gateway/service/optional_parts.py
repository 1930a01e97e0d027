"""Parts of a process that there are only where the config asks for them."""

import logging
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from backends.install_hint import suggest_install
from gateway.config import GatewayConfig
from gateway.scheduling.energy_price import EnergyPrice
from gateway.service.accounting.accuracy_account import AccuracyAccount
from gateway.service.callers.budget_store import BudgetStore, MemoryStore
from gateway.service.callers.rate_limits import RateLimits
from gateway.service.callers.spending import KeySpending
from gateway.service.request.accuracy_learning import AccuracyLearning
from gateway.service.request.learnt import Learnt
from gateway.service.request.learnt_exchange import get_shared_key
from gateway.structured import ConfigError
from gateway.telemetry import count_workers
from gateway.telemetry.boundary import JOULES_PER_KWH
from gateway.telemetry.decision_log import DecisionLog
from gateway.telemetry.experiment import ExperimentMetrics
from gateway.telemetry.exploration_metrics import ExplorationMetrics
from gateway.telemetry.metrics import GatewayMetrics

_log = logging.getLogger("joulegate")

_SECONDS_PER_DAY: Final = 86_400.0


def make_log(path: str | None, dropped: Counter) -> DecisionLog | None:
    """Return what writes a line for each request, where a file is named for it."""
    return DecisionLog(Path(path), dropped.inc) if path else None


def make_energy_price(config: GatewayConfig) -> EnergyPrice | None:
    """Return what holds this process to its part of the energy budget, where there is one."""
    if config.energy_budget is None:
        return None
    return EnergyPrice(config.energy_budget.joules_per_hour / count_workers())


def make_learnt(config: GatewayConfig, folder: str | None) -> Learnt | None:
    """Return what has been learnt; workers share it in `folder`, and a new one finds it there."""
    learning = config.learning
    if not learning.enabled:
        return None
    state = Path(learning.state) if learning.state else None
    accuracy = _make_accuracy_learning(config)
    if folder is None:
        return Learnt(state, accuracy=accuracy)
    try:
        shared = Path(folder)
        return Learnt(state or shared / "learnt.json", get_shared_key(shared), accuracy)
    except OSError as error:
        _log.error("this worker learns by itself: %s", error)
        return Learnt(state, accuracy=accuracy)


def _make_accuracy_learning(config: GatewayConfig) -> AccuracyLearning | None:
    """Return what learns accuracy from judgements, where that is wanted."""
    wanted = config.learning.accuracy
    if wanted is None:
        return None
    return AccuracyLearning(
        wanted.to_rules(count_workers()), wanted.half_life_days * _SECONDS_PER_DAY
    )


def make_accuracy_account(
    config: GatewayConfig, learnt: Learnt | None, registry: CollectorRegistry
) -> AccuracyAccount | None:
    """Return what tells that learner of requests and judgements."""
    if learnt is None or learnt.accuracy is None:
        return None
    models = dict.fromkeys(model.name for model in config.models)
    return AccuracyAccount(learnt, learnt.accuracy, ExplorationMetrics(registry, models))


def make_experiment_metrics(
    config: GatewayConfig, registry: CollectorRegistry
) -> ExperimentMetrics | None:
    """Return what counts for the arms of a switchback, where one is configured."""
    given = config.experiment
    if given is None:
        return None
    baseline = given.baseline.policy or given.baseline.model or ""
    return ExperimentMetrics(registry, given.make_switchback(), baseline)


def make_tracer(config: GatewayConfig) -> Any:
    """Return the RequestTracer, or None."""
    wanted = config.tracing
    if wanted.endpoint is None:
        return None
    from gateway.telemetry.tracing import RequestTracer  # noqa: PLC0415 - needs an extra

    return RequestTracer(wanted.endpoint, wanted.sample_ratio, wanted.service_name)


def make_key_spending(config: GatewayConfig, metrics: GatewayMetrics) -> KeySpending | None:
    """Return what holds API keys to their limits, where there are keys. Raises ConfigError."""
    if config.keys is None:
        return None
    given = config.keys.store
    url = None if given is None else given.url
    seconds = 1.0 if given is None else given.timeout_seconds
    try:
        if url is None:
            store: BudgetStore = MemoryStore()
            rates = RateLimits()
        else:
            from gateway.service.callers.redis_store import RedisStore  # noqa: PLC0415 - an extra

            store = shared = RedisStore(url, seconds)
            rates = RateLimits(shared.pool)
    except ModuleNotFoundError as error:
        raise ConfigError(f"keys: {error}; {suggest_install('keys')}") from None
    times, boundary = config.timeouts, config.boundary
    longest = max(times.stream_seconds, times.unary_seconds) + times.first_token_seconds
    return KeySpending(
        store,
        rates,
        metrics,
        fail_open=given is None or given.when_away == "open",
        hold_seconds=longest + _SETTLE_SECONDS,
        price_per_joule=(boundary.price_per_kwh or 0.0) * boundary.pue / JOULES_PER_KWH,
    )


_SETTLE_SECONDS: Final = 600.0
"""What a meter may take to settle a request, with room."""
