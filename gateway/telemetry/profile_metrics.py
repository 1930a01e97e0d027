"""The profile in force as metrics: versions, coefficients and their errors, reloads."""

import math
from collections.abc import Callable, Sequence

from prometheus_client import Counter, Gauge

_TERMS = 5


class ProfileMetrics:
    """What requests are predicted by, on the gateway's registry."""

    def __init__(
        self,
        make_counter: Callable[..., Counter],
        make_gauge: Callable[..., Gauge],
        *,
        shared: bool,
    ) -> None:
        """`shared`: as the gateway's metrics are."""
        self._shared = shared
        self._versions: dict[tuple[bool, str], str] = {}
        self.info = make_gauge(
            "profile_info", "1 for the profile version in force", "livemax", "model", "version"
        )
        self.coefficient = make_gauge(
            "profile_coefficient",
            "Coefficients of the costs in force: b0, per token in, per token out, both, load",
            "livemax",
            "model", "deployment", "quantity", "term",
        )  # fmt: skip
        self.coefficient_error = make_gauge(
            "profile_coefficient_stderr",
            "Their standard errors, where the profile has them",
            "livemax",
            "model", "deployment", "quantity", "term",
        )  # fmt: skip
        self.deployment_info = make_gauge(
            "deployment_info",
            "1 for the key of the profile that a deployment is predicted by",
            "livemax",
            "model", "deployment", "profile",
        )  # fmt: skip
        self.shadow_info = make_gauge(
            "shadow_profile_info", "1 for the profile version that predicts in shadow", "livemax",
            "model", "version",
        )  # fmt: skip
        self.reloads = make_counter(
            "profile_reloads_total", "Profile changes, by result: adopted, refused", "result"
        )
        for result in ("adopted", "refused"):
            self.reloads.labels(result)

    def forget_deployment(self, model: str, deployment: str, key: str) -> None:
        """Show no more of a deployment until it is published again."""
        if self._shared:  # where prometheus_client cannot remove a child
            self.deployment_info.labels(model, deployment, key).set(0)
            return
        self.deployment_info.remove(model, deployment, key)
        for quantity in ("seconds", "joules"):
            for place in range(_TERMS):
                labels = (model, deployment, quantity, f"b{place}")
                self.coefficient.remove(*labels)
                self.coefficient_error.remove(*labels)

    def publish_cost(
        self,
        model: str,
        deployment: str,
        quantity: str,
        coefficients: Sequence[float],
        covariance: Sequence[Sequence[float]] | None,
    ) -> None:
        """Show a cost in force; terms that its form lacks are 0."""
        for place in range(_TERMS):
            labels = (model, deployment, quantity, f"b{place}")
            known = place < len(coefficients)
            self.coefficient.labels(*labels).set(coefficients[place] if known else 0.0)
            variance = covariance[place][place] if known and covariance is not None else math.nan
            error = math.sqrt(variance) if variance >= 0.0 else math.nan
            self.coefficient_error.labels(*labels).set(error)

    def publish_profile(self, versions: dict[str, str], *, shadow: bool = False) -> None:
        """Say which profile version each model is predicted by."""
        info = self.shadow_info if shadow else self.info
        for model, version in versions.items():
            old = self._versions.get((shadow, model))
            if old is not None and old != version:
                if self._shared:  # where prometheus_client cannot remove a child
                    info.labels(model, old).set(0)
                else:
                    info.remove(model, old)
            info.labels(model, version).set(1)
            self._versions[shadow, model] = version
