"""What KEDA and the HorizontalPodAutoscaler that it makes do with a ScaledObject of the chart's.

KEDA itself is no package that this machine could install. This asks as its Prometheus scaler does
and decides as its executor does, by the source of KEDA 2.17 (pkg/scalers/prometheus_scaler.go,
pkg/scaling/executor/scale_scaledobjects.go): one sample or an error; active above the activation's
threshold; from none to one by KEDA, from there on by the autoscaler (value over threshold, rounded
up); to none once nothing was active for the cooldown; nothing at all after an error.
"""

import math
import time
from typing import Any

import httpx


class ScalerError(Exception):
    """The trigger could not be asked; says why."""


class Keda:
    """One ScaledObject's `spec`, and how many replicas its target has by it."""

    def __init__(self, spec: dict[str, Any], prometheus: str, *, replicas: int) -> None:
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus"
        self.told: dict[str, str] = trigger["metadata"]
        # KEDA refuses what is not text.
        assert all(isinstance(value, str) for value in self.told.values())
        self.prometheus = prometheus
        self.fewest, self.most = spec["minReplicaCount"], spec["maxReplicaCount"]
        self.polling_seconds: float = spec["pollingInterval"]
        self.cooldown_seconds: float = spec["cooldownPeriod"]
        self.replicas = replicas
        self._active_at: float | None = None

    def ask(self) -> float:
        """Return the trigger's value. Raises ScalerError."""
        answer = httpx.get(
            f"{self.prometheus}/api/v1/query", params={"query": self.told["query"]}, timeout=30
        )
        if not answer.is_success:
            raise ScalerError(f"status {answer.status_code}")
        found = answer.json()["data"]["result"]
        if len(found) > 1:
            raise ScalerError("multiple elements")
        value = float(found[0]["value"][1]) if found else math.nan
        if math.isfinite(value):
            return value
        if self.told.get("ignoreNullValues", "true") == "true":
            return 0.0
        raise ScalerError("the result is empty")

    def look(self) -> float | None:
        """Ask once and set `replicas` by the answer; return it, or None after an error."""
        try:
            value = self.ask()
        except ScalerError:
            return None
        now = time.monotonic()
        if value > float(self.told.get("activationThreshold", "0")):
            self._active_at = now
            self.replicas = max(self.replicas, self.fewest, 1)
        elif self.fewest == 0 and (
            self._active_at is None or self._active_at + self.cooldown_seconds < now
        ):
            self.replicas = 0
        if self.replicas:
            wanted = math.ceil(value / float(self.told["threshold"]))
            # Fewer only after the autoscaler's five minutes, which nobody waits for here.
            self.replicas = max(self.replicas, min(wanted, self.most))
        return value
