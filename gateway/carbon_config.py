"""The config's `carbon`: where the grid's intensity is had from."""

from typing import Annotated

from msgspec import Meta, Struct


class CarbonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How many grams of CO2e a kilowatt-hour stands for: one number, or a file by the hour."""

    grams_per_kwh: Annotated[float, Meta(ge=0.0, le=10_000.0)] | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if self.grams_per_kwh is not None and self.file is not None:
            raise ValueError("grams_per_kwh and file exclude each other")
