"""All sums of a window, read from Prometheus: the blocks of each deployment."""

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.recalibrate import sums
from calibration.recalibrate.prometheus import PrometheusClient, PrometheusError
from calibration.recalibrate.sums import SumBlock
from gateway.scheduling.cost import CostQuantity
from gateway.scheduling.regression_terms import COSTS, METERED, OUTPUT, PROMPT, ROWS

DeploymentKey = tuple[str, str]
"""Model and deployment, as the gateway labels them."""
INFO = "joulegate_profile_info"
_INFO_NAMES = frozenset({"__name__", "model", "version"})


@dataclass(frozen=True, slots=True)
class WindowSums:
    """All sums of a window: the blocks of each deployment, by (basis, quantity)."""

    blocks: Mapping[DeploymentKey, Mapping[tuple[str, str], SumBlock]]
    warnings: tuple[str, ...]


def gather_sums(server: PrometheusClient, window: str, at: float, version: str) -> WindowSums:
    """Read all sums of the window that ends at `at` (Unix seconds). Raises PrometheusError.

    Rows are winsorised and weighted around the prediction of their moment, so what an instance
    summed up before it took the live `version` into force is left out, where that is known.
    """
    blocks: dict[DeploymentKey, dict[tuple[str, str], SumBlock]] = {}
    warnings: list[str] = []
    since = _taken_into_force(server, window, at, version)

    def read_basis(basis: str, quantity: str) -> None:
        found = server.query_samples(sums.SUMS_METRIC, window, at, basis=basis, quantity=quantity)
        warnings.extend(found.attributed_warnings)
        for key, block in sums.read_blocks(basis, found.series, since).items():
            blocks.setdefault(key, {})[basis, quantity] = block
            warnings.extend(
                f"{key[1]}: {where} shows the same gateway as another series (two Prometheus "
                "servers?) and was left out"
                for where in block.duplicates
            )

    for quantity in CostQuantity:
        read_basis(COSTS, quantity.value)
        read_basis(ROWS, quantity.value)
    read_basis(METERED, CostQuantity.JOULES.value)
    for basis in (OUTPUT, PROMPT):
        read_basis(basis, "tokens")
    return WindowSums(blocks, tuple(dict.fromkeys(warnings)))


def _taken_into_force(
    server: PrometheusClient, window: str, at: float, version: str
) -> dict[str, float]:
    """Return when each instance was first seen with this version of the profile."""
    try:
        found = server.query_samples(INFO, window, at, version=version)
    except PrometheusError as error:
        if error.code is None:
            raise
        return {}  # a server that has only the sums
    since: dict[str, float] = {}
    for one in found.series:
        times = [when for when, value in one.values if float(value) > 0.0]
        if times:
            where = one.describe_instance(_INFO_NAMES)
            since[where] = min(times[0], since.get(where, times[0]))
    return since
