"""The configuration file as metrics: whether what is in force is what the file says."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge


class ConfigMetrics:
    """Changes of gateway.yaml, on the gateway's registry."""

    def __init__(
        self, make_counter: Callable[..., Counter], make_gauge: Callable[..., Gauge]
    ) -> None:
        self._reloads = make_counter(
            "config_reloads_total",
            "Changes of gateway.yaml, by result: adopted, refused (the one in force stays)",
            "result",
        )
        self._refused = make_gauge(
            "config_refused",
            "1 while the last gateway.yaml that was read is refused and an older one is in force",
            "livemax",
        )
        for result in ("adopted", "refused"):
            self._reloads.labels(result)

    def count_reload(self, *, adopted: bool) -> None:
        """Count a change of the file."""
        self._reloads.labels("adopted" if adopted else "refused").inc()
        self._refused.set(0 if adopted else 1)
