"""What the meter knows of one gateway process and of its requests."""

from typing import TYPE_CHECKING

from backends.meter.daemon.outbox import GatewayOutbox
from backends.meter.daemon.quotas import SenderUsage
from backends.meter.protocol import BackendRef

if TYPE_CHECKING:
    from backends.meter.daemon.ledger_runner import LedgerRunner


class AdmittedRequest:
    """A request that a ledger has, from its beginning until it is settled. Times are clock_us()."""

    __slots__ = (
        "arrived_us",
        "backend",
        "begin_us",
        "clipped_tokens",
        "doubted",
        "ended_us",
        "prompt_claimed",
        "prompt_claimed_us",
        "prompt_tokens",
        "runner",
        "tokens",
    )

    def __init__(
        self, runner: "LedgerRunner", backend: str, begin_us: int, arrived_us: int, prompt: int
    ) -> None:
        self.runner = runner
        self.backend = backend
        self.begin_us = begin_us
        self.arrived_us = arrived_us
        self.prompt_tokens = prompt
        self.prompt_claimed: int | None = None
        """Its prompt tokens as claimed of the backend's counter; None before its first token."""
        self.prompt_claimed_us = 0
        self.tokens = 0
        self.clipped_tokens = 0
        self.ended_us: int | None = None
        self.doubted = False
        """Whether its energy may be wrong because somebody claimed what cannot be."""


class GatewaySession:
    """One gateway."""

    def __init__(self, name: str, outbox: GatewayOutbox, address: str) -> None:
        self.name = name
        self.outbox = outbox
        self.usage = SenderUsage(address)
        self.seen_us = 0
        self.vanished = False
        self.blames = 0
        self.suspended_until_us = 0
        self.unattributed_reported_us = 0
        self.listed_backends: list[BackendRef] = []
        self.resolved_backends: list[tuple[LedgerRunner, str] | None] = []
        self.names_by_runner: dict[LedgerRunner, dict[str, str]] = {}
        """By ledger: its name of each backend, and the gateway's."""
        self.host_microjoules = 0
        self.host_us = 0
        """Its share of the host's energy, and the time that this was counted over."""
        self.unknown_backends: list[str] = []
        self.requests: dict[int, AdmittedRequest] = {}

    @property
    def open_requests(self) -> int:
        """How many of its requests have not ended."""
        return sum(request.ended_us is None for request in self.requests.values())
