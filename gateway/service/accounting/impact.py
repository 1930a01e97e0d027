"""What an answer is estimated to cost, told within it: `usage.energy` and `usage.carbon`.

An answer does not wait for a meter: its joules are the profile's for the tokens it has. What was
measured shows later, in `GET /v1/requests/{id}`.
"""

from functools import partial
from typing import Any

from backends.meter.method import ESTIMATED
from backends.sse import TokenUsage
from gateway.service.upstream.upstream_response import UpstreamResponse
from gateway.telemetry.boundary import (
    JOULES_PER_KWH,
    NO_HOST_SHARE,
    BoundaryRates,
    RequestBoundary,
    draw_boundary,
)
from gateway.telemetry.boundary_account import BoundaryAccount
from gateway.telemetry.carbon import CarbonIntensity
from gateway.telemetry.record import RequestRecord

_GRAMS_PER_KG = 1e3


class ImpactEstimator:
    """Estimates answers by the boundary and the grid's intensity, where these are configured."""

    def __init__(self, boundary: BoundaryAccount | None, carbon: CarbonIntensity | None) -> None:
        self._boundary = boundary
        self._carbon = carbon

    def attach_to(self, opened: UpstreamResponse, record: RequestRecord, *, wanted: bool) -> None:
        """Have an answer's `usage` say what it cost, where that is wanted."""
        if not wanted:
            return
        opened.impact = partial(self._estimate_answer, record, opened)
        if opened.stream is not None:
            opened.stream.impact = opened.impact

    def _estimate_answer(
        self, record: RequestRecord, opened: UpstreamResponse, usage: TokenUsage
    ) -> dict[str, Any]:
        scored, answered, at = opened.scored, record.answered, record.received.at
        if answered is None or answered.option is None:
            return {}
        tokens_in = usage.prompt_tokens or scored.tokens_in
        joules = record.sequences.predict_joules(
            answered.option.joules, tokens_in, usage.completion_tokens or 0, scored.running
        )
        if self._boundary is not None and opened.host_share is not None:
            host = opened.host_share.read_share()
            lines = self._boundary.draw_lines(record.model, joules, host, at)
        else:
            lines = draw_boundary(joules, NO_HOST_SHARE, None, self._find_rates(at))
        return describe_impact(joules, lines)

    def _find_rates(self, at: float) -> BoundaryRates:
        grams = None if self._carbon is None else self._carbon.to_grams(JOULES_PER_KWH, at)
        return BoundaryRates(1.0, grams)


def describe_impact(joules: float, lines: RequestBoundary) -> dict[str, Any]:
    """Return `energy` and `carbon`: the least is without idle, the most with it, where known."""
    own, most = lines.own, lines.with_idle or lines.own
    carbon = {"kWh": {"min": own.joules / JOULES_PER_KWH, "max": most.joules / JOULES_PER_KWH}}
    if own.co2e_grams is not None and most.co2e_grams is not None:
        carbon["kgCO2eq"] = {
            "min": own.co2e_grams / _GRAMS_PER_KG,
            "max": most.co2e_grams / _GRAMS_PER_KG,
        }
    energy = {"joules": joules, "method": ESTIMATED, **lines.to_dict()}
    return {"energy": energy, "carbon": carbon}
