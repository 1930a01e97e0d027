"""Who asks: made once for each key, and found once for each request."""

from typing import Any, NamedTuple

from gateway.service.request.routing_table import ModelNames
from gateway.telemetry.request_stages import CallerIdentity


class Caller(NamedTuple):
    """The holder of a key, and what it may do; the key itself is nowhere.

    `names` are the models and presets that it may ask for; of those that wait, one with a higher
    `priority` is served first.
    """

    identity: CallerIdentity
    names: ModelNames
    priority: int = 0
    limits: Any = None
    """What it may spend, as `callers.key_limits` has it; None without limits."""

    @property
    def tenant(self) -> str:
        """The name that keys of one owner share."""
        return self.identity.tenant
