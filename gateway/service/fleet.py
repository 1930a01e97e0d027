"""From the config to deployments, their backends, the meters beside these, and the boundary."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from backends.circuit_breaker import EjectionPolicy
from backends.client import BackendClient
from backends.deployment_room import DeploymentRoom
from backends.http.url import TlsFiles
from backends.meter.client.meter_client import MeterLink
from backends.registry import Backend, Deployment, group_backends
from gateway.boundary_config import BoundaryConfig
from gateway.carbon_config import CarbonConfig
from gateway.config import BackendConfig, GatewayConfig, ModelConfig
from gateway.service.admission import share_limit
from gateway.service.holding import RequestHolder
from gateway.telemetry import count_workers
from gateway.telemetry.boundary import BoundaryRates
from gateway.telemetry.boundary_account import BoundaryAccount
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.grid_query import GridQuery
from gateway.telemetry.metrics import GatewayMetrics
from gateway.tls_config import TlsConfig


def build_deployments(
    config: GatewayConfig, rng: random.Random, known: Iterable[Backend] = ()
) -> tuple[Deployment, ...]:
    """Make every deployment with its backends, in the config's order.

    A backend that is `known` by its address is taken over as it is, its load and ejection too.
    """
    health_config = config.health
    ejection = EjectionPolicy(
        health_config.eject_after_failures,
        health_config.eject_seconds,
        health_config.eject_max_seconds,
    )
    made = {backend.root: backend for backend in known}

    def find_or_make(wanted: BackendConfig) -> Backend:
        """Return the backend of an address: one, however many models it serves."""
        if wanted.root_url not in made:
            made[wanted.root_url] = Backend(
                wanted.root_url,
                api_key=wanted.api_key,
                tls=_files(wanted.tls or config.tls),
                ejection=ejection,
            )
        return made[wanted.root_url]

    def make_deployment(model: ModelConfig) -> Deployment:
        found = [find_or_make(backend) for backend in model.backends]
        served = model.served_name or model.name
        deployment = Deployment(model.name, model.deployment_label, served, found, rng=rng)
        if model.max_running is not None:
            deployment.room = DeploymentRoom(share_limit(model.max_running, count_workers()))
        return deployment

    return tuple(map(make_deployment, config.models))


def update_backends(
    config: GatewayConfig,
    before: GatewayConfig,
    deployments: Sequence[Deployment],
    links: dict[str, MeterLink],
    client: BackendClient,
) -> None:
    """Have backends that were taken over go by what the new configuration says of them."""
    old = {one.root_url: one for model in before.models for one in model.backends}
    for model, deployment in zip(config.models, deployments, strict=True):
        for wanted, backend in zip(model.backends, deployment.backends, strict=True):
            if wanted == old.get(backend.root):
                continue
            backend.change_access(wanted.api_key, _files(wanted.tls or config.tls))
            backend.meter = None
    connect_meters(config, deployments, client, links)
    group_backends(deployments)


def list_meters(config: GatewayConfig) -> set[str]:
    """Return the address of every meter that a configuration names."""
    named = (one.meter for model in config.models for one in model.backends)
    return {_find_meter_root(meter) for meter in named if meter is not None}


def _files(tls: TlsConfig | None) -> TlsFiles | None:
    return None if tls is None else tls.files


def connect_meters(
    config: GatewayConfig,
    made: Sequence[Deployment],
    client: BackendClient,
    links: dict[str, MeterLink] | None = None,
) -> tuple[MeterLink, ...]:
    """Connect each backend that is not yet to its meter; return all meters, each once.

    `links` are those that there are already, by address; it gets the new ones too.
    """
    links = {} if links is None else links
    for model, deployment in zip(config.models, made, strict=True):
        for wanted, backend in zip(model.backends, deployment.backends, strict=True):
            if wanted.meter is not None and backend.meter is None:
                root = _find_meter_root(wanted.meter)
                if root not in links:
                    links[root] = MeterLink(
                        root,
                        client,
                        secret=config.meter_secret,
                        tls=_files(config.meter_tls or config.tls),
                    )
                ledger = urlsplit(wanted.meter).path.strip("/")
                backend.meter = links[root].add_backend(backend.label, ledger)
    return tuple(links.values())


def _find_meter_root(meter: str) -> str:
    parts = urlsplit(meter)
    return f"{parts.scheme}://{parts.netloc}"


def make_holder(
    config: GatewayConfig, made: tuple[Deployment, ...], metrics: GatewayMetrics
) -> RequestHolder | None:
    """Make what holds requests for models that sleep; None where none may."""
    seconds = {model.name: model.wake_seconds for model in config.models if model.wake_seconds}
    return RequestHolder(made, seconds, metrics) if seconds else None


def make_carbon_intensity(config: GatewayConfig, client: BackendClient) -> CarbonIntensity | None:
    """Make what turns joules into grams; None where nothing is configured. Raises ConfigError."""
    wanted = config.carbon
    if wanted == CarbonConfig():
        return None
    grid = None
    if wanted.prometheus is not None:
        asked = wanted.prometheus
        tls = _files(asked.tls or config.tls)
        grid = GridQuery(client, asked.url, asked.labels, token=asked.token, tls=tls)
    path = Path(wanted.file) if wanted.file else None
    return CarbonIntensity(wanted.grams_per_kwh, path=path, grid=grid)


def make_boundary(
    config: GatewayConfig,
    made: tuple[Deployment, ...],
    metrics: GatewayMetrics,
    carbon: CarbonIntensity | None,
) -> BoundaryAccount | None:
    """Make what charges requests beyond their accelerators; None where nothing is configured."""
    wanted = config.boundary
    if wanted == BoundaryConfig():
        return None
    return BoundaryAccount(
        BoundaryRates(wanted.pue, None, wanted.price_per_kwh, wanted.currency),
        wanted.host_watts,
        made,
        metrics.registry,
        carbon=carbon,
        processes=count_workers(),
    )
