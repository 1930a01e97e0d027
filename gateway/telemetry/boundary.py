"""What a request costs at the wall and on the bill, from the joules of its accelerators. Pure.

Rules of this file:

- A request's own joules are its accelerators' and its part of the host's; its idle joules are own
  joules x (joules nobody used / joules used), of its model over about the last day.
- PUE multiplies all of them: what cooling and power supply add is `overhead_joules`.
- Grams and money are given twice: of the own joules, and with idle. With idle they are null until
  something was used, because nothing says before that whose the idle energy is.
"""

from math import exp
from typing import Any, Final, NamedTuple

JOULES_PER_KWH: Final = 3_600_000.0
_MEMORY_SECONDS: Final = 86_400.0


class BoundaryRates(NamedTuple):
    """What a joule of the server counts for: times `pue`, then grams and money a kWh, or None."""

    pue: float = 1.0
    grams_per_kwh: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None


class FacilityTotals(NamedTuple):
    """Joules at the wall, and their grams of CO2e and price, where there is a rate."""

    joules: float
    co2e_grams: float | None
    cost: float | None


class HostEnergyShare(NamedTuple):
    """A request's part of its server's joules, and how the server's power was known, if it is."""

    joules: float
    source: str | None


NO_HOST_SHARE: Final = HostEnergyShare(0.0, None)


class RequestBoundary(NamedTuple):
    """One request's lines; joules, and grams and money of `own` and of `with_idle`."""

    host: HostEnergyShare
    overhead_joules: float
    idle_joules: float | None
    own: FacilityTotals
    with_idle: FacilityTotals | None
    currency: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the shape of `observed.boundary`."""
        idle = self.with_idle
        return {
            "host_joules": self.host.joules,
            "host_source": self.host.source,
            "overhead_joules": self.overhead_joules,
            "idle_joules": self.idle_joules,
            "facility_joules": self.own.joules,
            "facility_joules_with_idle": idle and idle.joules,
            "co2e_grams": self.own.co2e_grams,
            "co2e_grams_with_idle": idle and idle.co2e_grams,
            "cost": self.own.cost,
            "cost_with_idle": idle and idle.cost,
            "currency": self.currency,
        }


class IdleRatio:
    """Joules that nobody used per joule used; what is older than about a day is forgotten."""

    __slots__ = ("_at", "_idle_joules", "_used_joules")

    def __init__(self, now: float) -> None:
        """Begin with nothing at `now`, monotonic seconds."""
        self._at = now
        self._used_joules = 0.0
        self._idle_joules = 0.0

    def add_joules(self, now: float, *, used: float = 0.0, idle: float = 0.0) -> None:
        """Take joules that were used, and that were not."""
        kept = exp(-max(0.0, now - self._at) / _MEMORY_SECONDS)
        self._at = max(now, self._at)
        self._used_joules = self._used_joules * kept + used
        self._idle_joules = self._idle_joules * kept + idle

    @property
    def value(self) -> float | None:
        """The ratio; None while nothing was used."""
        return self._idle_joules / self._used_joules if self._used_joules > 0.0 else None


def convert_joules(joules: float, rates: BoundaryRates) -> FacilityTotals:
    """Return what `joules` of a server are at the wall, in grams and in money."""
    facility = joules * rates.pue
    kwh = facility / JOULES_PER_KWH
    return FacilityTotals(
        facility,
        None if rates.grams_per_kwh is None else kwh * rates.grams_per_kwh,
        None if rates.price_per_kwh is None else kwh * rates.price_per_kwh,
    )


def draw_boundary(
    accelerator_joules: float,
    host: HostEnergyShare,
    idle_ratio: float | None,
    rates: BoundaryRates,
) -> RequestBoundary:
    """Return one request's lines."""
    own_joules = accelerator_joules + host.joules
    idle_joules = None if idle_ratio is None else own_joules * idle_ratio
    return RequestBoundary(
        host,
        own_joules * (rates.pue - 1.0),
        idle_joules,
        convert_joules(own_joules, rates),
        None if idle_joules is None else convert_joules(own_joules + idle_joules, rates),
        rates.currency,
    )
