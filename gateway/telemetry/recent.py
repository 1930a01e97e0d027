"""The last requests of this process, for `GET /v1/requests/{id}`."""

from collections import OrderedDict

from gateway.telemetry.record import RequestRecord


class RecentRequests:
    """Keeps up to `limit` records, oldest out first; an id used again replaces its record."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def add_record(self, record: RequestRecord) -> None:
        """Keep a record."""
        if not self.limit:
            self._records.clear()
            return
        self._records[record.id] = record
        self._records.move_to_end(record.id)
        while len(self._records) > self.limit:
            self._records.popitem(last=False)

    def get_record(self, request_id: str) -> RequestRecord | None:
        """Return a record, or None where it is unknown or gone."""
        return self._records.get(request_id)
