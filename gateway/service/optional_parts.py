"""Parts of a process that there are only where the config asks for them."""

from typing import Any

from prometheus_client import CollectorRegistry

from gateway.config import GatewayConfig
from gateway.scheduling.energy_price import EnergyPrice
from gateway.telemetry import count_workers
from gateway.telemetry.experiment import ExperimentMetrics


def make_energy_price(config: GatewayConfig) -> EnergyPrice | None:
    """Return what holds this process to its part of the energy budget, where there is one."""
    if config.energy_budget is None:
        return None
    return EnergyPrice(config.energy_budget.joules_per_hour / count_workers())


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
