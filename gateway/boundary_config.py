"""What a request is charged beyond its accelerators: the `boundary` of gateway.yaml."""

from typing import Annotated

from msgspec import Meta, Struct


class BoundaryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts besides the accelerators' joules: the server's other watts, PUE, the price.

    `host_watts` is what a server draws without its accelerators, divided by the gateways that send
    to it (a gateway divides it by its own workers). Backends whose URLs name one host share one
    server. With `pue` every joule counts that many times; `price_per_kwh` is in `currency`, by its
    three letters. What is assumed: docs/energy.md.
    """

    host_watts: Annotated[float, Meta(ge=0.0, le=100_000.0)] = 0.0
    pue: Annotated[float, Meta(ge=1.0, le=10.0)] = 1.0
    price_per_kwh: Annotated[float, Meta(ge=0.0, le=1000.0)] | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None

    def __post_init__(self) -> None:
        if (self.price_per_kwh is None) != (self.currency is None):
            raise ValueError("price_per_kwh and currency need each other")
