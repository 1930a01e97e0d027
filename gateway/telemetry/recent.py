"""The last requests of this process, for `GET /v1/requests/{id}`."""

from collections import OrderedDict
from typing import Final

from gateway.telemetry.record import RequestRecord

ANYBODY: Final = "*"
"""In a tenant's place: no tenant can be called that."""


class RecentRequests:
    """Keeps up to `limit` records, oldest out first; an id used again replaces its record.

    Ids are a tenant's own: whoever sends another's id neither sees nor replaces its record.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._records: OrderedDict[tuple[str | None, str], RequestRecord] = OrderedDict()

    def add_record(self, record: RequestRecord) -> None:
        """Keep a record."""
        if not self.limit:
            self._records.clear()
            return
        key = (record.tenant, record.id)
        records = self._records
        if key in records:
            del records[key]  # it goes to the end
        records[key] = record
        while len(records) > self.limit:
            records.popitem(last=False)

    def get_record(self, request_id: str, tenant: str | None = None) -> RequestRecord | None:
        """Return a tenant's record, or None where it is unknown or gone.

        Of ANYBODY's with this id the one that was asked last.
        """
        if tenant == ANYBODY:
            kept = reversed(self._records.values())
            return next((record for record in kept if record.id == request_id), None)
        return self._records.get((tenant, request_id))
