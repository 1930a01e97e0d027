"""The config's `carbon`: where the grid's intensity is had from."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.server_url import check_prometheus_url
from gateway.structured import check_secret_or_file, read_secret
from gateway.tls_config import TlsConfig, load_tls


class GridConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A Prometheus that has `grid_intensity_carbon_average`, of a grid-intensity exporter.

    `location` and `provider` are the series' labels; without them it must have one grid's alone.
    `token`, or what `token_file` holds, is sent as a bearer's.
    """

    url: str
    location: str | None = None
    provider: str | None = None
    token: str | None = None
    token_file: str | None = None
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        check_prometheus_url("url", self.url)
        check_secret_or_file("token", self.token, self.token_file)

    @property
    def labels(self) -> dict[str, str]:
        """The labels that are given."""
        given = {"location": self.location, "provider": self.provider}
        return {name: value for name, value in given.items() if value is not None}


class CarbonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How many grams of CO2e a kilowatt-hour stands for: one number, a file, or a Prometheus.

    With `prometheus` the number counts while nothing is known from there.
    """

    grams_per_kwh: Annotated[float, Meta(ge=0.0, le=10_000.0)] | None = None
    file: str | None = None
    prometheus: GridConfig | None = None

    def __post_init__(self) -> None:
        if self.file is not None and self.grams_per_kwh is not None:
            raise ValueError("grams_per_kwh and file exclude each other")
        if self.file is not None and self.prometheus is not None:
            raise ValueError("file and prometheus exclude each other")


def load_carbon(carbon: CarbonConfig, folder: Path) -> CarbonConfig:
    """Return it with paths that start at `folder` and its files read. Raises ConfigError."""
    grid = carbon.prometheus
    if grid is not None:
        key = "carbon.prometheus"
        grid = msgspec.structs.replace(
            grid,
            token=read_secret(grid.token, grid.token_file, folder, f"{key}.token"),
            token_file=None,
            tls=load_tls(grid.tls, folder, f"{key}.tls"),
        )
    return CarbonConfig(
        grams_per_kwh=carbon.grams_per_kwh,
        file=carbon.file and str(folder / carbon.file),
        prometheus=grid,
    )
